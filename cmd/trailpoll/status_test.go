package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/control"
)

func TestAge(t *testing.T) {
	for seconds, want := range map[int64]string{
		0: "0s", 59: "59s", 60: "1m", 61: "1m1s", 3599: "59m59s", 3600: "1h", 3660: "1h1m", 3601: "1h",
		86400: "1d", 90000: "1d1h", 86400*400 + 3600*23: "400d23h",
	} {
		if got := age(seconds); got != want {
			t.Errorf("%d: %s, want %s", seconds, got, want)
		}
	}
}

// What comes from elsewhere makes no second line, and does not drive the
// terminal.
func TestInvariant11_StatusIsOneLineEach(t *testing.T) {
	since := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	evil := "a\nagent  runs\r\x1b[2J\u202e\u2028\x9b"
	st := &control.Status{Agent: control.Process{Running: true, Since: &since, Version: evil}}
	st.Sources = []agent.SourceStatus{{Name: "trail", Troubles: []agent.Trouble{{What: evil, Error: evil}}}}
	st.Outputs = []agent.OutputStatus{{Name: "siem", State: agent.StateHeld, Error: evil, Since: &since}}
	st.Streams = []agent.StreamStatus{{Source: "trail", Account: "111122223333", AccountName: evil, Region: evil}}
	var b strings.Builder
	statusTable(&b, st, true)
	p := &control.Parked{Parked: []control.ParkedEntry{{ID: "x", Key: evil, Output: evil, Error: evil}}}
	if err := parkedTable(&b, p); err != nil {
		t.Fatal(err)
	}
	if err := showParked(&b, &p.Parked[0]); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.ContainsAny(line, "\r\x1b\u202e\u2028\u009b") || strings.HasPrefix(line, "agent  runs") {
			t.Errorf("%q", line)
		}
	}
}

func TestSortingAndNarrowing(t *testing.T) {
	lane := func(output string, behind int64, parked, pending int) agent.LaneStatus {
		return agent.LaneStatus{Output: output, Behind: behind, Parked: parked, Pending: pending}
	}
	st := &control.Status{}
	for account, l := range map[string][]agent.LaneStatus{
		"000000000001": {lane("a", 30, 0, 0), lane("b", 7200, 0, 0)},
		"000000000002": {lane("a", 3600, 0, 0), lane("b", 30, 0, 0)},
		"000000000003": {lane("a", 30, 5, 0), lane("b", 40, 0, 0)},
		"000000000004": {lane("a", 50, 0, 9)},
	} {
		s := agent.StreamStatus{Source: "trail", Account: account, Region: "eu-central-1", Outputs: l}
		for _, x := range l {
			s.Behind, s.Parked, s.Pending = max(s.Behind, x.Behind), s.Parked+x.Parked, max(s.Pending, x.Pending)
		}
		st.Streams = append(st.Streams, s)
	}
	order := func() (all string) {
		for _, s := range st.Streams {
			all += s.Account[11:]
		}
		return all
	}
	agent.SortStreams(st.Streams)
	if got := order(); got != "1234" {
		t.Errorf("worst first: %s", got)
	}
	if err := (&statusFlags{output: "a"}).narrow(st); err != nil || order() != "2341" {
		t.Errorf("for a: %s, %v", order(), err)
	}
	if err := (&statusFlags{output: "b"}).narrow(st); err != nil || order() != "" {
		t.Errorf("for b, of what is left: %s, %v", order(), err)
	}
}
