// Package page is the status page: one screen that says whether all is well,
// and shows by day what of each account and region has arrived. It is rendered
// here, so that it says the same to a browser without JavaScript; a small
// script only brings it up to date.
//
// Nothing can be changed from it, and it loads nothing from elsewhere.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/control"
)

//go:embed assets page.html
var files embed.FS

// policy lets the page have its own style, script and icons, and nothing else:
// no inline script or style, no frame, no form.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// Config is what a page is made of. Its functions may be called from any
// goroutine, and are called one at a time.
type Config struct {
	Snapshot func() (*control.Snapshot, error)
	Coverage func(days int) (*control.Coverage, error)
	// Parked lists at most limit entries that wait.
	Parked  func(limit int) (*control.Parked, error)
	History *History
	Version string
}

// Page serves the status page. It may be used from any goroutine.
type Page struct {
	cfg      Config
	template *template.Template
	assets   map[string]asset

	mu     sync.Mutex
	recent map[int]gathered // by days
}

// asset is a file that the page loads.
type asset struct {
	kind, etag string
	content    []byte
}

// gathered is all that a page shows, as it was at one moment.
type gathered struct {
	at       time.Time
	snapshot *control.Snapshot
	coverage *control.Coverage
	parked   *control.Parked
	// What could not be found out.
	failure, coverageFailure, parkedFailure error
}

// New makes a Page. It starts nothing.
func New(cfg Config) (*Page, error) {
	p := &Page{cfg: cfg, assets: make(map[string]asset), recent: make(map[int]gathered)}
	var err error
	if p.template, err = template.New("page.html").Funcs(template.FuncMap{
		"clean": clean, "age": age, "number": anyNumber, "bytes": size,
	}).ParseFS(files, "page.html"); err != nil {
		return nil, err
	}
	dir, err := files.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	kinds := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	for _, f := range dir {
		b, err := files.ReadFile("assets/" + f.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		_, ext, _ := strings.Cut(f.Name(), ".")
		p.assets["/"+f.Name()] = asset{kinds[ext], `"` + hex.EncodeToString(sum[:8]) + `"`, b}
	}
	return p, nil
}

// ServeHTTP serves the page and what it loads. Who may see it is the caller's
// to decide.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if a, ok := p.assets[r.URL.Path]; ok {
		h.Set("Content-Type", a.kind)
		h.Set("Cache-Control", "no-cache") // asked for again after an upgrade
		h.Set("ETag", a.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
		return
	}
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	o := optionsOf(r)
	g := p.gather(o.Days)
	var b bytes.Buffer
	if err := p.template.Execute(&b, p.view(&g, o)); err != nil {
		control.Fail(w, err)
		return
	}
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if g.failure != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(b.Bytes())
}

// options are what the address of the page may ask for.
type options struct {
	Days int
	All  bool // every row and stream, within what a browser can show
}

// spans are the numbers of days that the page offers.
func spans() []int { return []int{14, 30, 90, 180, 365} }

// optionsOf reads the parameters; what it doesn't understand is as usual.
func optionsOf(r *http.Request) options {
	o := options{Days: 30, All: r.URL.Query().Get("rows") == "all"}
	if n, err := strconv.Atoi(r.URL.Query().Get("days")); err == nil {
		for _, d := range spans() {
			if n == d {
				o.Days = n
			}
		}
	}
	return o
}

// keep is for how long what was gathered serves other requests: many browsers
// cost no more than one.
const keep = 2 * time.Second

// mostParked is how many parked entries are listed.
const mostParked = 20

// gather asks for all that a page shows.
func (p *Page) gather(days int) gathered {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g, ok := p.recent[days]; ok && time.Since(g.at) < keep {
		return g
	}
	var g gathered
	if g.snapshot, g.failure = p.cfg.Snapshot(); g.failure == nil {
		g.coverage, g.coverageFailure = p.cfg.Coverage(days)
		g.parked, g.parkedFailure = p.cfg.Parked(mostParked)
	}
	g.at = time.Now()
	if g.failure == nil {
		p.cfg.History.sample(g.at, g.snapshot)
	}
	p.recent[days] = g
	return g
}
