package checkpointtest

import (
	"errors"
	"testing"

	"github.com/trailpoll/trailpoll/agent/progress"
)

func TestMemoryConforms(t *testing.T) {
	Run(t, func(*testing.T) Store { return NewMemory() })
}

func TestMemoryFails(t *testing.T) {
	m, l := NewMemory(), Lane(1, "siem")
	for fault, want := range map[Fault]progress.Standing{
		Lost: progress.Open, AnswerLost: progress.Settled, None: progress.Settled,
	} {
		pos := Position(l, 0, int(fault))
		m.Inject(func(call string) Fault {
			if call == "Commit" {
				return fault
			}
			return None
		})
		err := m.Commit(&progress.Changes{Settled: settled(l, pos)})
		if errors.Is(err, ErrInjected) != (fault != None) {
			t.Errorf("fault %d gave %v", fault, err)
		}
		wantStanding(t, m, l, pos, want)
		wantStanding(t, m.Clone(), l, pos, want)
	}
}
