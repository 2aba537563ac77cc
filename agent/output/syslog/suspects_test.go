package syslog

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// A receiver breaks the connection at two records of a batch, as librelp does
// with messages over its limit. They are refused after some attempts; all
// others arrive.
func TestInvariant5_RecordsThatBreakTheSession(t *testing.T) {
	for _, bad := range [][]string{{"n-7"}, {"n-0", "n-19"}, {"n-3", "n-4", "n-5"}} {
		in := newReceiver(t, relpFraming, nil)
		in.setAnswer(func(msg []byte) string {
			for _, id := range bad {
				if bytes.Contains(msg, []byte(`"`+id+`"`)) {
					in.reset()
				}
			}
			return "200 OK"
		})
		o := open(t, Config{Transport: RELP, Addresses: []string{in.addr}})
		var err error
		attempts := 1
		for ; attempts < 40; attempts++ {
			err = o.Send(t.Context(), batch(outputtest.Numbered("n", 20)))
			if len(fault.RefusalsOf(err)) > 0 {
				break
			}
			if err == nil || fault.KindOf(err) != fault.Temporary {
				t.Fatalf("%v: %v", bad, err)
			}
		}
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.Refused || len(e.Records) != len(bad) || !strings.Contains(e.Records[0].Answer, "breaks the connection") {
			t.Fatalf("%v: after %d attempts %+v", bad, attempts, err)
		}
		want := outputtest.Numbered("n", 20)
		for _, r := range e.Records {
			if id := string(want[r.Index].EventID); !strings.Contains(strings.Join(bad, " "), id) {
				t.Errorf("%v: %s is refused", bad, id)
			}
		}
		there := map[string]bool{}
		for _, r := range in.Records() {
			there[string(r)] = true
		}
		for _, r := range want {
			guilty := strings.Contains(" "+strings.Join(bad, " ")+" ", " "+string(r.EventID)+" ")
			if !guilty && !there[string(r.Raw)] {
				t.Errorf("%v: %s did not arrive", bad, r.EventID)
			}
		}
		t.Logf("%v: %d attempts", bad, attempts)
		// The next batch goes at once, and so does this one when it comes again.
		others := outputtest.Numbered("m", 20)
		for i := range others {
			others[i].Index += 100
		}
		if err := o.Send(t.Context(), batch(others)); err != nil {
			t.Fatal(err)
		}
		if err := o.Send(t.Context(), batch(want)); len(fault.RefusalsOf(err)) != len(bad) {
			t.Fatalf("%v: again: %v", bad, err)
		}
		// After a while it is tried again.
		r := o.to.(*relp)
		for name := range r.suspects.guilty {
			r.suspects.guilty[name] = time.Now().Add(-guiltFor)
		}
		in.setAnswer(nil)
		if err := o.Send(t.Context(), batch(want)); err != nil || len(r.suspects.guilty) != 0 {
			t.Fatalf("%v: %v, %v", bad, err, r.suspects.guilty)
		}
	}
}

// A receiver that dies whatever it is sent has no record blamed.
func TestInvariant5_DyingReceiverBlamesNoRecord(t *testing.T) {
	in := newReceiver(t, relpFraming, nil)
	in.setAnswer(func([]byte) string {
		in.reset()
		return "200 OK"
	})
	o := open(t, Config{Transport: RELP, Addresses: []string{in.addr}})
	for range 60 {
		if err := o.Send(t.Context(), batch(outputtest.Numbered("n", 10))); err == nil || len(fault.RefusalsOf(err)) > 0 {
			t.Fatalf("%v", err)
		}
	}
	in.setAnswer(nil)
	if err := o.Send(t.Context(), batch(outputtest.Numbered("n", 10))); err != nil {
		t.Fatal(err)
	}
}

// After some breaks one message at a time is sent, so that it is known which.
func TestSuspectsOneByOne(t *testing.T) {
	var s suspects
	r := outputtest.Numbered("n", 1)
	for n := range 5 {
		if got, want := s.window(100), []int{100, 100, 1, 1, 1}[n]; got != want {
			t.Errorf("after %d breaks: %d at once, want %d", n, got, want)
		}
		if last, never := s.of(batch(r)); (len(last) == 1) != (n == 4) || len(never) > 0 {
			t.Errorf("after %d breaks: last %v, never %v", n, last, never)
		}
		s.broke(&r[0], false)
	}
	s.works()
	if !s.idle() || s.window(100) != 100 {
		t.Errorf("%+v", s)
	}
}

// However many records break the session, the list of them stays short: the
// oldest go, and those that were on it for long enough.
func TestSuspectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s suspects
		records := outputtest.Numbered("n", 3*maxGuilty)
		guilty := func(r *record.Record) {
			s.breaks = oneByOne
			s.broke(r, true)
			time.Sleep(time.Millisecond)
		}
		for i := range records {
			s.breaks = oneByOne
			s.broke(&records[i], false)
			guilty(&records[i])
			if len(s.guilty) > maxGuilty || len(s.at) > maxGuilty {
				t.Fatalf("%d guilty, %d suspected", len(s.guilty), len(s.at))
			}
		}
		if _, never := s.of(batch(records[2*maxGuilty:])); len(never) != maxGuilty {
			t.Errorf("%d of the last %d are known", len(never), maxGuilty)
		}
		time.Sleep(guiltFor)
		guilty(&records[0])
		if len(s.guilty) != 1 {
			t.Errorf("%d are guilty, and one of them since less than %v", len(s.guilty), guiltFor)
		}
	})
}
