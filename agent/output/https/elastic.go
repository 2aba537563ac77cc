package https

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// elastic is ElasticBulk. Each record is created under its identity, so that a
// batch may be sent again: what is there already is answered with 409, which is
// as good as taken.
type elastic struct {
	index indexName
}

func (elastic) contentType() string { return "application/x-ndjson" }
func (elastic) around() int         { return 150 }

func (l elastic) write(s *sheet, b *record.Batch) {
	var name []byte // of the index, quoted
	var day time.Time
	for i := range b.Records {
		r := &b.Records[i]
		p, ok := s.of(i, r)
		if !ok {
			continue
		}
		if !l.index.empty() {
			if at := r.Time().Truncate(time.Hour); name == nil || l.index.dated && !at.Equal(day) {
				day, name = at, appendQuoted(name[:0], l.index.at(at))
			}
		}
		s.edge = append(s.edge[:0], `{"create":{`...)
		if name != nil {
			s.edge = append(s.edge, `"_index":`...)
			s.edge = append(s.edge, name...)
			s.edge = append(s.edge, ',')
		}
		s.edge = append(s.edge, `"_id":`...)
		s.edge = appendQuoted(s.edge, documentID(r))
		s.edge = append(s.edge, "}}\n"...)
		s.put(s.edge)
		s.put(p)
		s.put(lineFeed)
	}
}

var lineFeed = []byte("\n")

// maxID is the longest _id, in bytes (Elasticsearch, "_id field").
const maxID = 512

func documentID(r *record.Record) string {
	id := r.Identity()
	if len(id) <= maxID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}

func (elastic) refusal(int, []byte) (answer, bool) { return answer{}, false }

// bulkAnswer is the body of _bulk's answer, as far as it counts.
type bulkAnswer struct {
	Errors *bool `json:"errors"`
	Items  []map[string]struct {
		Status int             `json:"status"`
		Error  json.RawMessage `json:"error"`
	} `json:"items"`
}

// maxItem bounds what is read of an answer for each record, in bytes.
const maxItem = 4 << 10

var errNoBulk = errors.New("the answer is not that of _bulk")

// taken reads the results of the items, which stand in the order of the
// records. If some have to be sent again all are: those that were taken are
// answered with 409 then.
func (elastic) taken(resp *http.Response, n int) outcome {
	var said bulkAnswer
	text, err := io.ReadAll(io.LimitReader(resp.Body, int64(maxAnswer+n*maxItem)))
	if err != nil {
		return outcome{err: &fault.Error{Err: unreadable(err)}}
	}
	if json.Unmarshal(text, &said) != nil || said.Errors == nil {
		return outcome{err: &fault.Error{Kind: fault.Held, Err: errNoBulk, Hint: "check that url leads to Elasticsearch's or OpenSearch's _bulk"}}
	}
	if !*said.Errors {
		return outcome{}
	}
	if len(said.Items) != n {
		return outcome{err: &fault.Error{Err: fmt.Errorf("the answer is about %d records, and %d were sent", len(said.Items), n)}}
	}
	var out outcome
	for i, item := range said.Items {
		if len(item) == 0 { // nothing is said of it: that is no acknowledgement
			out.item(i, 0, nil)
		}
		for _, result := range item { // one member, named for the action
			out.item(i, result.Status, result.Error)
		}
	}
	return out
}

// item adds the result of the record of that number.
func (out *outcome) item(i, status int, detail []byte) {
	if status == http.StatusConflict {
		return
	}
	a := classify(status)
	if a.ok {
		return
	}
	why := "the item was answered " + statusText(status)
	if said := bulkReason(detail); said != "" {
		why += ": " + said
	}
	if a.kind == fault.Refused || a.kind == fault.TooLarge {
		out.refused = append(out.refused, fault.RecordRefusal{Index: i, Answer: why})
		return
	}
	// What holds the output is said first, then what asks for less, then the rest.
	rank := map[fault.Kind]int{fault.Temporary: 1, fault.Throttled: 2, fault.Held: 3}
	if out.err == nil || rank[a.kind] > rank[out.err.Kind] {
		out.err = &fault.Error{Kind: a.kind, Err: errors.New(why), Hint: a.hint}
	}
}

// bulkReason reads an item's error, which is an object, and a string in old
// versions.
func bulkReason(detail []byte) string {
	var e struct {
		Type, Reason string
		Cause        struct{ Type, Reason string } `json:"caused_by"`
	}
	if json.Unmarshal(detail, &e) != nil {
		return string(bytes.Trim(detail, `"`))
	}
	parts := []string{e.Type, e.Reason, e.Cause.Reason}
	return strings.Join(compact(parts), ": ")
}

func compact(parts []string) []string {
	kept := parts[:0]
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return kept
}

// indexName is the name of an index, with the parts of a date in it: %Y, %m, %d
// and %H of the event's time, UTC; %% is a percent sign.
type indexName struct {
	pattern string
	dated   bool
}

func newIndexName(pattern string) (indexName, error) {
	x := indexName{pattern: pattern}
	for rest := pattern; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return x, nil
		}
		if after == "" || !strings.ContainsRune("YmdH%", rune(after[0])) {
			return x, fmt.Errorf("index %.60q: behind %% stands Y, m, d, H or another %%", pattern)
		}
		x.dated = x.dated || after[0] != '%'
		rest = after[1:]
	}
}

func (x indexName) empty() bool { return x.pattern == "" }

// at returns the name for an event of that time.
func (x indexName) at(t time.Time) string {
	if !strings.Contains(x.pattern, "%") {
		return x.pattern
	}
	t = t.UTC()
	return strings.NewReplacer(
		"%%", "%", "%Y", fmt.Sprintf("%04d", t.Year()), "%m", t.Format("01"), "%d", t.Format("02"), "%H", t.Format("15"),
	).Replace(x.pattern)
}
