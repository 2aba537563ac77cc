package browser

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	logs "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium finds the browser, or skips the test; in CI it must be there.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "needs chromium: apt-get install chromium fonts-dejavu-core")
	return ""
}

// missing skips a test, or fails it in CI.
func missing(t *testing.T, text string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// axe returns the source of axe-core, or "" where it is not to be had.
func axe(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("TRAILPOLL_CI_CACHE")
	if cache == "" {
		cache = "/var/cache/trailpoll-ci"
	}
	b, err := os.ReadFile(filepath.Join(cache, "axe-core", "axe.min.js"))
	if errors.Is(err, fs.ErrNotExist) {
		missing(t, "needs axe-core: .ci/fetch page, or set TRAILPOLL_CI_CACHE")
	} else if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tab is a tab that notes what it asks for and what it complains about.
type tab struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	elsewhere  []string
	requests   int
}

// open opens a tab of a browser of its own.
func open(t *testing.T, w *world, width, height int64, dark bool, before ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancel)
	b := &tab{ctx: ctx}
	at, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(ev any) { b.note(ev, at.Host) }); err != nil {
		t.Fatal(err)
	}
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	setup := chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		if _, err := cdp.Call(ctx, tg, network.Enable, network.EnableParams{}); err != nil {
			return err
		}
		if _, err := cdp.Call(ctx, tg, logs.Enable, cdp.Empty{}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, tg, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
	steps := append([]chromedp.Action[chromedp.Void]{setup, chromedp.EmulateViewport(width, height)}, before...)
	if err := chromedp.Do(ctx, append(steps, chromedp.Navigate(w.url))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.complaints {
			t.Errorf("the console says: %s", c)
		}
		for _, u := range b.elsewhere {
			t.Errorf("the page asks elsewhere: %s", u)
		}
		if b.requests < 3 {
			t.Errorf("%d requests were seen: page, style and icon are more", b.requests)
		}
	})
	return b
}

func (b *tab) note(ev any, host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.requests++
		if u, err := url.Parse(ev.Request.URL); err != nil || u.Host != host {
			b.elsewhere = append(b.elsewhere, ev.Request.URL)
		}
	case *logs.EventEntryAdded:
		b.complaints = append(b.complaints, string(ev.Entry.Level)+": "+ev.Entry.Text+" "+ev.Entry.URL)
	case *runtime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, "console."+string(ev.Type))
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, ev.ExceptionDetails.Text)
	}
}

// get runs JavaScript and returns what it gives.
func get[T any](t *testing.T, b *tab, expression string, opts ...chromedp.EvaluateOption) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, opts...))
	if err != nil {
		t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// shoot keeps a picture among what CI keeps.
func shoot(t *testing.T, b *tab, name string) {
	t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	store(t, name, png)
}

// store keeps a picture.
func store(t *testing.T, name string, png []byte) {
	t.Helper()
	dir := os.Getenv("TRAILPOLL_CI_ARTEFACTS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "bin", "screenshots")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// faults runs axe-core and returns what it finds serious.
func faults(t *testing.T, b *tab) []string {
	t.Helper()
	source := axe(t)
	get[bool](t, b, source+"; true")
	text := get[string](t, b, `axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise)
	var violations []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	if err := json.Unmarshal([]byte(text), &violations); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, v := range violations {
		line := v.Impact + ": " + v.ID + ": " + v.Help
		for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
			line += "\n  " + n.HTML + "\n  " + n.FailureSummary
		}
		if v.Impact == "serious" || v.Impact == "critical" {
			found = append(found, line)
		} else {
			t.Log(line)
		}
	}
	return found
}

// gapCell finds the cell of the gap by its row's and column's headings, as a
// screen reader would.
func gapCell(w *world) string {
	return `(() => {
  const table = document.querySelector('table.calendar');
  const days = [...table.tHead.rows[1].cells].map((c) => c.textContent.trim());
  const row = [...table.tBodies[0].rows].find((r) => r.cells[0].textContent.includes('` + w.gapAccount + `') && r.cells[0].textContent.includes('` + gapRegion + `'));
  const cell = row.cells[days.indexOf('` + w.gapDay + `')];
  return cell.className + '|' + cell.innerText.replace(/\s+/g, ' ').trim();
})()`
}

func TestPageShowsTheGap(t *testing.T) {
	w := newWorld(t)
	for _, x := range []struct {
		name          string
		width, height int64
		dark          bool
	}{
		{"desktop", 1280, 900, false},
		{"desktop-dark", 1280, 900, true},
		{"phone", 390, 844, false},
		{"phone-dark", 390, 844, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := open(t, w, x.width, x.height, x.dark)
			if got := get[string](t, b, gapCell(w)); !strings.HasPrefix(got, "cell missing|M missing, 1 pending") {
				t.Errorf("the gap's cell is %q", got)
			}
			text := get[string](t, b, `document.querySelector('.verdict').innerText`)
			for _, want := range []string{"Needs a look", "payments-prod (" + w.gapAccount + ") · " + gapRegion + ", " + w.gapDay, "parked"} {
				if !strings.Contains(text, want) {
					t.Errorf("there is no %q in the verdict: %s", want, text)
				}
			}
			if n := get[int](t, b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); n > 0 {
				t.Errorf("the page is %d pixels wider than the window", n)
			}
			if !get[bool](t, b, `(() => { const c = [...document.querySelectorAll('.calendar thead tr:last-child th')].at(-1).getBoundingClientRect(); return c.left >= 0 && c.right <= innerWidth; })()`) {
				t.Error("today can't be seen without scrolling")
			}
			background := get[string](t, b, `getComputedStyle(document.body).backgroundColor`)
			if white := background == "rgb(255, 255, 255)"; white == x.dark {
				t.Errorf("the background is %s", background)
			}
			// The three that have to be told apart are, by more than their colour.
			for _, state := range []string{"missing", "parked", "settled", "empty", "not-collected"} {
				if get[int](t, b, `document.querySelectorAll('.calendar td.`+state+`').length`) == 0 {
					t.Errorf("no day is shown as %s", state)
				}
			}
			for _, f := range faults(t, b) {
				t.Errorf("axe-core finds %s", f)
			}
			shoot(t, b, x.name)
		})
	}
	t.Run("picture of docs", func(t *testing.T) {
		b := open(t, w, 1100, 840, false)
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		store(t, "status-page", small(t, png))
	})
	t.Run("without JavaScript", func(t *testing.T) { withoutScript(t, w) })
	t.Run("healed", func(t *testing.T) { healed(t, w) })
}

// What matters is there without JavaScript.
func withoutScript(t *testing.T, w *world) {
	b := open(t, w, 1280, 900, false, chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		_, err := cdp.Call(ctx, tg, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	text, err := chromedp.Run(b.ctx, chromedp.Text("body"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Needs a look", "Missing: payments-prod (" + w.gapAccount + ") · " + gapRegion + ", " + w.gapDay, "siem ok", "corrupt", "Without JavaScript"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "Pause updates") {
		t.Error("the script has run")
	}
	shoot(t, b, "without-javascript")
}

// The script brings the page up to date, and says so when nothing answers.
func healed(t *testing.T, w *world) {
	b := open(t, w, 1280, 900, false)
	get[bool](t, b, `document.querySelector('main details').open = true`)
	update := `document.querySelector('header button').click(); document.querySelector('header button').click(); true`
	w.server.Inject(nil)
	await(t, "the agent reads again", func() bool { return strings.HasPrefix(w.states(t), "missing 0") })
	await(t, "the page shows it", func() bool {
		get[bool](t, b, update)
		return strings.HasPrefix(get[string](t, b, gapCell(w)), "cell settled|")
	})
	if !get[bool](t, b, `document.querySelector('main details').open`) {
		t.Error("what was opened has been shut")
	}
	for _, level := range []string{"ok", "warn", "bad"} {
		get[bool](t, b, `document.querySelectorAll('.verdict, .card, .state').forEach((e) => { e.classList.remove('ok', 'warn', 'bad'); e.classList.add('`+level+`'); }); true`)
		for _, f := range faults(t, b) {
			t.Errorf("axe-core finds, where all is %s, %s", level, f)
		}
	}
	// An agent that has stopped answering must not look well.
	if get[bool](t, b, `!document.querySelector('.stale').hidden`) {
		t.Error("the page says that nothing answers")
	}
	get[bool](t, b, `window.fetch = () => Promise.reject(new TypeError('gone')); `+update)
	await(t, "the page says that nothing answers", func() bool {
		return get[bool](t, b, `!document.querySelector('.stale').hidden && document.title.includes('No answer')`)
	})
	if text := get[string](t, b, `document.querySelector('.stale').innerText`); !strings.Contains(text, "does not answer") || !strings.Contains(text, "as of 20") {
		t.Errorf("it says %s", text)
	}
	for _, f := range faults(t, b) {
		t.Errorf("axe-core finds %s", f)
	}
	// Nothing can be changed from a browser, and other sites get nothing.
	resp, err := http.Post(w.url, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered with %s", resp.Status)
	}
}
