package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/klauspost/compress/gzip"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/filter"
	"github.com/trailpoll/trailpoll/agent/record"
)

// filterSample is what the filters of a configuration would do to a log file.
type filterSample struct {
	Schema  int            `json:"schema"`
	File    string         `json:"file"`
	Sources []sampleSource `json:"sources"`
}

// sampleSource is what those of one source would do.
type sampleSource struct {
	Source     string         `json:"source"`
	Records    int            `json:"records"`
	Kept       int            `json:"kept"`
	LeftOut    int            `json:"left_out"`
	Unreadable int            `json:"unreadable"` // would be parked
	DropSelf   bool           `json:"drop_self"`
	Self       int64          `json:"self"`
	Unmatched  int64          `json:"unmatched"`
	Filters    []sampleFilter `json:"filters"`
	Calls      []sampleCall   `json:"left_out_calls"` // most first
}

type sampleFilter struct {
	Filter  int    `json:"filter"`
	Action  string `json:"action"`
	When    string `json:"when,omitzero"`
	Match   string `json:"match,omitzero"`
	Matched int64  `json:"matched"`
	Failed  int64  `json:"failed"`
}

type sampleCall struct {
	Call    string `json:"call"`
	Records int    `json:"records"`
}

// mostCalls is how many calls that would be left out are named.
const mostCalls = 10

// sampleFilters asks the filters of every source that is enabled about each
// record of a log file, as it is in S3 (.json.gz) or unpacked.
func sampleFilters(c *config.Config, path string) (*filterSample, error) {
	out := &filterSample{Schema: 1, File: path, Sources: []sampleSource{}}
	for i := range c.Sources {
		s := &c.Sources[i]
		if !s.Enabled {
			continue
		}
		one, err := sampleOf(s, path, int(c.Agent.MaxRecord))
		if err != nil {
			return nil, err
		}
		out.Sources = append(out.Sources, one)
	}
	return out, nil
}

func sampleOf(s *config.Source, path string, maxRecord int) (sampleSource, error) {
	out := sampleSource{Source: s.Name, DropSelf: s.DropSelf, Filters: []sampleFilter{}, Calls: []sampleCall{}}
	f, err := wireFilter(s)
	if err != nil {
		return out, err
	}
	if f == nil {
		if f, _, err = filter.Compile(filter.Config{}); err != nil {
			return out, err
		}
	}
	calls := map[string]int{}
	object := &record.Object{Source: s.Name, Bucket: s.Bucket.Name, Key: filepath.Base(path)}
	err = eachRecord(path, maxRecord, func(r *record.Record, err error) {
		out.Records++
		if err != nil {
			out.Unreadable++
			return
		}
		if r.Object = object; f.Keep(r) {
			out.Kept++
			return
		}
		out.LeftOut++
		calls[callOf(r.Raw)]++
	})
	if err != nil {
		return out, err
	}
	counts := f.Counts()
	out.Self, out.Unmatched = counts.Self, counts.Unmatched
	for i, r := range counts.Rules {
		out.Filters = append(out.Filters, sampleFilter{i + 1, r.Action, r.When, r.Match, r.Matched, r.Failed})
	}
	for _, name := range slices.SortedFunc(maps.Keys(calls), func(a, b string) int {
		return cmp.Or(cmp.Compare(calls[b], calls[a]), cmp.Compare(a, b))
	}) {
		if len(out.Calls) < mostCalls {
			out.Calls = append(out.Calls, sampleCall{name, calls[name]})
		}
	}
	return out, nil
}

// callOf returns which call a record tells of.
func callOf(raw []byte) string {
	var event struct {
		Source string `json:"eventSource"`
		Name   string `json:"eventName"`
		Type   string `json:"eventType"`
	}
	_ = json.Unmarshal(raw, &event) // what it can't read has no name
	name := strings.Trim(event.Source+":"+event.Name, ":")
	if name = cmp.Or(name, event.Type, "unnamed"); strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

// eachRecord hands out the records of a log file. An error beside one says that
// it can't be read.
func eachRecord(path string, maxRecord int, yield func(*record.Record, error)) error {
	fail := func(err error, hint string) error {
		return failed(&fault.Error{Op: "reading " + path, Err: err, Hint: hint})
	}
	file, err := os.Open(path)
	if err != nil {
		if e, ok := errors.AsType[*os.PathError](err); ok {
			err = e.Err
		}
		return fail(err, "name a CloudTrail log file, .json.gz as it is in S3 or unpacked")
	}
	defer file.Close()
	in := io.Reader(bufio.NewReader(file))
	if head, _ := in.(*bufio.Reader).Peek(2); string(head) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return fail(err, "")
		}
		defer z.Close()
		in = z
	}
	var s cloudtrail.Splitter
	s.ResetReader(in, maxRecord)
	for {
		r, err := s.Next()
		switch e, ok := errors.AsType[*cloudtrail.Error](err); {
		case errors.Is(err, io.EOF):
			return nil
		case ok && e.RecordOnly:
			yield(nil, err)
		case err != nil:
			return fail(err, "it must be a CloudTrail log file")
		default:
			yield(&r, nil)
		}
	}
}

// table shows the sample to a person.
func (s *filterSample) table(w io.Writer) error {
	for i := range s.Sources {
		o := &s.Sources[i]
		fmt.Fprintf(w, "source %s: of %d records %d would go on and %d be left out\n", o.Source, o.Records, o.Kept, o.LeftOut)
		if o.Unreadable > 0 {
			fmt.Fprintf(w, "%d can't be read and would be parked\n", o.Unreadable)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprint(t, "  filter\taction\tmatched\tfailed\t\n")
		if o.DropSelf {
			fmt.Fprintf(t, "  drop_self\tdrop\t%d\t0\t\n", o.Self)
		}
		for _, f := range o.Filters {
			fmt.Fprintf(t, "  %d\t%s\t%d\t%d\t%s\n", f.Filter, f.Action, f.Matched, f.Failed, shortened(cmp.Or(f.When, f.Match)))
		}
		fmt.Fprintf(t, "  none\tkeep\t%d\t0\t\n", o.Unmatched)
		if err := t.Flush(); err != nil {
			return err
		}
		for i, c := range o.Calls {
			if i == 0 {
				fmt.Fprint(w, "  left out:\n")
			}
			fmt.Fprintf(w, "  %7d  %s\n", c.Records, c.Call)
		}
	}
	return nil
}

// shortened returns an expression on one line.
func shortened(s string) string {
	const most = 72
	line := strings.Join(strings.Fields(s), " ")
	if runes := []rune(line); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return line
}

// showFilterSample prints what the filters would do to a log file.
func showFilterSample(c *cobra.Command, conf *config.Config, path string, asJSON bool) error {
	s, err := sampleFilters(conf, path)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetEscapeHTML(false)
		return failed(e.Encode(s))
	}
	return failed(s.table(c.OutOrStdout()))
}
