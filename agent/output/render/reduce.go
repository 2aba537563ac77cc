package render

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/trailpoll/trailpoll/agent/record"
)

// dropFirst are the members that are left out first, in this order: those that
// CloudTrail lets grow to 28 and 100 KB.
var dropFirst = [...]string{
	"responseElements", "requestParameters", "additionalEventData", "serviceEventDetails",
	"resources", "edgeDeviceDetails", "insightDetails", "eventContext", "addendum",
}

// dropNever are the members that stay: identity, time, source, name, account
// and region. Who did it stays as long as leaving out anything else helps.
var dropNever = [...]string{
	"eventVersion", "eventID", "eventId", "eventTime", "eventSource", "eventName", "eventType", "awsRegion",
	"recipientAccountId", "accountId", "errorCode",
}

// mark is the member that says what was left out. A member of that name in the
// record itself makes way for it, and is named in it.
const mark = "trailpoll"

const (
	// maxNamed is how many members are named as left out, and maxName how long
	// such a name may be: the rest are counted, so that a record made of
	// thousands of members gets smaller, too.
	maxNamed = 24
	maxName  = 64
)

// Ranks of members: in which order they are left out. Before rankSize stand
// those of dropFirst.
const (
	rankMark  = -1             // always
	rankSize  = len(dropFirst) // any other, the largest first
	rankWho   = rankSize + 1   // userIdentity
	rankNever = rankSize + 2
)

// cutter reduces one record, as far as is asked for.
type cutter struct {
	rec     *record.Record
	members []member
	order   []int  // members that may be left out, in that order, those of one name together
	gone    []bool // by member
	out     []byte
}

func (c *cutter) forget() {
	c.rec, c.members = nil, nil
	if cap(c.out) > maxKept {
		c.out = nil
	}
	if cap(c.order) > 4096 {
		c.order, c.gone = nil, nil
	}
}

// cutter returns what reduces rec. It is valid until the worker is done.
func (w *worker) cutter(rec *record.Record) (*cutter, error) {
	var err error
	if w.top, err = w.members(w.top[:0], rec.Raw); err != nil {
		return nil, err
	}
	c := &w.cut
	c.rec, c.members, c.order = rec, w.top, c.order[:0]
	sizes := make(map[string]int, len(c.members)) // of all members of a name
	for i := range c.members {
		m := &c.members[i]
		if sizes[m.plain] += len(m.whole); rank(m.plain) != rankNever {
			c.order = append(c.order, i)
		}
	}
	slices.SortStableFunc(c.order, func(i, j int) int {
		a, b := c.members[i].plain, c.members[j].plain
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(sizes[b], sizes[a]), cmp.Compare(a, b))
	})
	return c, nil
}

func rank(name string) int {
	switch {
	case name == mark:
		return rankMark
	case name == "userIdentity":
		return rankWho
	case slices.Contains(dropNever[:], name):
		return rankNever
	}
	if i := slices.Index(dropFirst[:], name); i >= 0 {
		return i
	}
	return rankSize
}

// to returns the record with as many members left out as make it at most size
// bytes, valid until the next call. least says that no more can be left out,
// whether that was enough or not.
func (c *cutter) to(size int) (reduced []byte, least bool) {
	c.gone = append(c.gone[:0], make([]bool, len(c.members))...)
	n := len(`{}`) + len(c.appendMark(nil, nil, len(c.members)))
	for i := range c.members {
		n += len(c.members[i].whole) + len(",")
	}
	var names [][]byte
	more, next, last := 0, 0, ""
	for ; next < len(c.order); next++ {
		m := &c.members[c.order[next]]
		again := next > 0 && m.plain == last
		if n <= size && !again && m.plain != mark {
			break
		}
		c.gone[c.order[next]], last = true, m.plain
		n -= len(m.whole) + len(",")
		switch {
		case again:
		case len(m.name) <= maxName && len(names) < maxNamed:
			names = append(names, m.name)
			n += len(m.name) + len(",")
		default:
			more++
		}
	}
	b := append(c.out[:0], '{')
	for i := range c.members {
		if !c.gone[i] {
			b = append(b, c.members[i].whole...)
			b = append(b, ',')
		}
	}
	b = c.appendMark(b, names, more)
	c.out = append(b, '}')
	return c.out, next == len(c.order)
}

// appendMark appends the member that says what was left out: the names, how
// many more there are, and where the whole record is.
func (c *cutter) appendMark(dst []byte, names [][]byte, more int) []byte {
	dst = append(dst, `"`+mark+`":{"reduced":[`...)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, name...)
	}
	dst = append(dst, ']')
	if more > 0 {
		dst = append(dst, `,"more":`...)
		dst = strconv.AppendInt(dst, int64(more), 10)
	}
	dst = appendMember(dst, "bucket", c.rec.Object.Bucket)
	dst = appendMember(dst, "key", c.rec.Object.Key)
	dst = append(dst, `,"index":`...)
	dst = strconv.AppendInt(dst, int64(c.rec.Index), 10)
	return append(dst, '}')
}
