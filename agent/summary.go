package agent

import (
	"context"
	"time"
)

// summarizeEvery is how often a line says how the agent does.
const summarizeEvery = time.Minute

// summarize logs what happened in the last minute, until ctx ends, and once
// more then.
func (a *Agent) summarize(ctx context.Context) {
	type sums struct{ lists, gets, bytes, objects, parked, foreign, filtered int64 }
	last := make(map[*source]sums)
	sent := make(map[*delivery]int64)
	began := time.Now()
	line := func() {
		took := time.Since(began).Seconds()
		began = time.Now()
		for _, s := range a.sources {
			now := sums{
				s.count.lists.Load(), s.count.gets.Load(), s.count.bytes.Load(),
				s.count.objects.Load(), s.count.parked.Load(), s.count.foreign.Load(), s.count.filtered.Load(),
			}
			was := last[s]
			last[s] = now
			e := s.log.Info().Int("streams", len(s.all())).
				Int64("lists", now.lists-was.lists).Int64("gets", now.gets-was.gets).
				Int64("bytes", now.bytes-was.bytes).Int64("objects_settled", now.objects-was.objects).
				Int("waiting", s.queue.len()).Int64("memory_used_bytes", s.memory.budget.used())
			if n := now.parked - was.parked; n > 0 {
				e = e.Int64("parked", n)
			}
			if n := now.filtered - was.filtered; n > 0 {
				e = e.Int64("filtered", n)
			}
			if n := now.foreign - was.foreign; n > 0 {
				e = e.Int64("not_log_files", n)
			}
			e.Msg("summary")
		}
		for _, d := range a.outputs {
			now := d.sent.total.Load()
			n := now - sent[d]
			sent[d] = now
			d.mu.Lock()
			state, _ := d.state()
			d.mu.Unlock()
			d.log.Info().Str("state", state).Int64("records", n).Int64("records_per_second", int64(float64(n)/max(took, 0.001)+0.5)).
				Msg("summary")
		}
	}
	for sleep(ctx, summarizeEvery) {
		line()
	}
	line()
}

// settledOne counts an object that is durably settled.
func (s *source) settledOne(*target) {
	s.count.objects.Add(1)
	s.moved()
}
