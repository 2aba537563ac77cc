package agent

// stakes is the memory of each source that an output keeps: by what waits for
// it, and by what it is sending. A small object takes more memory than its
// records have bytes, so the bytes alone don't tell when an output that is slow
// has all of a source's memory, and others that take the same objects get none.
type stakes struct {
	of      map[*source]*stake
	crammed int // sources of which the output keeps its part
	pressed int // sources of which so much waits that no batch waits to get full
}

// stake is what an output keeps of one source's memory, in bytes.
type stake struct {
	part         int64 // that it may keep from the others
	shared       bool  // there are others
	waiting, all int64
}

// add notes that the output keeps more, or less where it is negative.
func (k *stakes) add(s *source, waiting, all int64) {
	x := k.of[s]
	if x == nil {
		if k.of == nil {
			k.of = make(map[*source]*stake)
		}
		n := len(s.outputs)
		x = &stake{part: s.memory.budget.size / int64(n), shared: n > 1}
		k.of[s] = x
	}
	k.count(x, -1)
	x.waiting += waiting
	x.all += all
	k.count(x, 1)
}

func (k *stakes) count(x *stake, n int) {
	if x.crams() {
		k.crammed += n
	}
	if x.waiting >= x.part/2 {
		k.pressed += n
	}
}

func (x *stake) crams() bool { return x.shared && x.all >= x.part }

// crams reports whether the output keeps its part of the source's memory.
func (k *stakes) crams(s *source) bool {
	x := k.of[s]
	return x != nil && x.crams()
}

// kept returns the memory that a parcel keeps.
func (p *parcel) kept() int64 {
	raw := int64(0)
	for i := range p.records {
		raw += int64(len(p.records[i].Raw))
	}
	return max(raw, p.chunk.reserved) // its bytes may be another chunk's
}

// free lets go of the memory of a batch.
func (d *delivery) free(l *load) {
	d.mu.Lock()
	was := d.stakes.crammed
	for i := range l.pieces {
		if p := &l.pieces[i]; p.kept > 0 {
			d.stakes.add(p.target.stream.source, 0, -p.kept)
			p.kept = 0
		}
	}
	room := d.stakes.crammed < was
	d.mu.Unlock()
	l.free()
	if room {
		d.agent.room(d)
	}
}
