package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		if got := m.perSecond(); got != 0 {
			t.Errorf("%v a second of nothing", got)
		}
		for range 10 * 60 {
			m.add(100)
			time.Sleep(time.Second)
		}
		if got := m.perSecond(); got < 95 || got > 105 {
			t.Errorf("%v a second, want about 100", got)
		}
		time.Sleep(2 * time.Minute)
		if got := m.perSecond(); got != 0 {
			t.Errorf("%v a second, two minutes after the last", got)
		}
		if got := m.total.Load(); got != 60000 {
			t.Errorf("%d in all", got)
		}
		time.Sleep(100 * 24 * time.Hour)
		m.add(61)
		if got := m.perSecond(); got != 1 {
			t.Errorf("%v a second, long after the last", got)
		}
	})
}

func TestHourCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHourCount()
		h.add(1)
		if got := h.perHour(); got != 12 { // at least five minutes are looked at
			t.Errorf("%d an hour at once", got)
		}
		for range 6 * 60 {
			h.add(1)
			time.Sleep(time.Minute)
		}
		if got := h.perHour(); got < 58 || got > 62 {
			t.Errorf("%d an hour, want about 60", got)
		}
		time.Sleep(65 * time.Minute)
		if got := h.perHour(); got != 0 {
			t.Errorf("%d an hour, of nothing", got)
		}
	})
}

func TestLatency(t *testing.T) {
	var l latency
	for _, d := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, time.Second, time.Hour} {
		l.note(d)
	}
	s := l.snapshot()
	at := func(bound float64) uint64 {
		for i, b := range s.Bounds {
			if b == bound {
				return s.Counts[i]
			}
		}
		return 0
	}
	if at(0.001) != 2 || at(0.0025) != 1 || at(1) != 1 || s.Counts[len(s.Counts)-1] != 1 || s.Sum < 3601 || s.Sum > 3602 {
		t.Errorf("%+v", s)
	}
}
