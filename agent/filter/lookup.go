package filter

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/expr-lang/expr/vm"
	"github.com/go-json-experiment/json/jsontext"
)

var (
	errUnreadable = errors.New("the record could not be read")
	errOtherKind  = errors.New("a member is of another type than the rule takes it for")
	errNoBool     = errors.New("the rule came to no true or false")
	errRun        = errors.New("the rule could not be worked out")
)

// lookup is all that the rules of a filter want to know of a record.
type lookup struct {
	names  []name
	byName map[string]int
	root   *node
	nodes  int
}

// name is a member as an expression knows it.
type name struct {
	text string // how the compiled program calls it
	kind kind
	path []string
	node *node
}

// node is a member that is wanted, or one that wanted members stand in.
type node struct {
	id     int
	name   string
	wanted bool
	kids   []*node
	// lengths has a bit for each length of a kid's name: most members are
	// passed over by it.
	lengths uint64
}

func (l *lookup) begin() {
	l.byName = map[string]int{}
	l.root = &node{}
	l.nodes = 1
}

// name returns the name of a member in compiled programs. It is not looked up
// before want says so.
func (l *lookup) name(k kind, path []string) string {
	// A name that no operator could write, and no path could be taken for
	// another's.
	text := string(k) + "\x00" + strings.Join(path, "\x00")
	if _, ok := l.byName[text]; !ok {
		l.byName[text] = len(l.names)
		l.names = append(l.names, name{text: text, kind: k, path: path})
	}
	return text
}

// want makes the member be looked up.
func (l *lookup) want(path []string) *node {
	n := l.root
	if path[0] == everything {
		path = path[1:]
	}
	for _, part := range path {
		i := slices.IndexFunc(n.kids, func(k *node) bool { return k.name == part })
		if i < 0 {
			i = len(n.kids)
			n.kids = append(n.kids, &node{id: l.nodes, name: part})
			n.lengths |= 1 << min(len(part), 63)
			l.nodes++
		}
		n = n.kids[i]
	}
	n.wanted = true
	return n
}

// onlyChosen reports whether all that is used can be set by who calls.
func (l *lookup) onlyChosen(names []int) bool {
	for _, i := range names {
		path := l.names[i].path
		if path[0] == everything {
			path = path[1:]
		}
		if !slices.Contains(chosen, path[0]) {
			return false
		}
	}
	return len(names) > 0
}

// scratch is the memory for one record at a time.
type scratch struct {
	look  *lookup
	found []span // by node id
	round int
	raw   []byte
	env   map[string]any
	bad   []bool // by name: the member is of another kind than the name's
	vm    vm.VM
	// boxed are short strings as they are handed to programs, so that each is
	// made once.
	boxed map[string]any
	text  []byte
}

// span is a member's value in the record, found in a round.
type span struct{ round, from, to int }

func (l *lookup) newScratch() *scratch {
	return &scratch{
		look: l, found: make([]span, l.nodes), env: make(map[string]any, len(l.names)),
		bad: make([]bool, len(l.names)), boxed: map[string]any{},
	}
}

func (s *scratch) forget() { s.raw = nil }

// find looks all wanted members up and fills the environment of the programs.
// It returns false for a record that it can't read.
func (s *scratch) find(l *lookup, raw []byte) bool {
	if len(l.root.kids) == 0 {
		return true
	}
	s.round++
	s.raw = raw
	i := space(raw, 0)
	if i >= len(raw) || raw[i] != '{' || s.object(i, l.root) < 0 {
		return false
	}
	for i := range l.names {
		n := &l.names[i]
		if n.node == nil {
			continue
		}
		v, ok := s.value(n)
		s.bad[i] = !ok
		s.env[n.text] = v
	}
	return true
}

// at returns the value of a member, nil if the record has none.
func (s *scratch) at(n *node) []byte {
	f := s.found[n.id]
	if f.round != s.round {
		return nil
	}
	return s.raw[f.from:f.to]
}

// object notes the wanted members of the object that begins at raw[i], and
// returns the index behind it, or -1 if it is not well formed. Of several
// members of a name the first counts.
func (s *scratch) object(i int, n *node) int {
	raw := s.raw
	i = space(raw, i+1)
	if i < len(raw) && raw[i] == '}' {
		return i + 1
	}
	for i < len(raw) && raw[i] == '"' {
		from := i + 1
		end := stringEnd(raw, from)
		if end < 0 {
			return -1
		}
		kid := n.kid(raw[from:end])
		i = space(raw, end+1)
		if i >= len(raw) || raw[i] != ':' {
			return -1
		}
		if i = space(raw, i+1); i >= len(raw) {
			return -1
		}
		from = i
		if kid != nil && s.found[kid.id].round == s.round {
			kid = nil
		}
		if kid != nil && len(kid.kids) > 0 && raw[i] == '{' {
			s.found[kid.id].round = s.round // so that it is not entered again
			i = s.object(i, kid)
		} else {
			i = skip(raw, i)
		}
		if i < 0 {
			return -1
		}
		if kid != nil {
			s.found[kid.id] = span{s.round, from, i}
		}
		i = space(raw, i)
		if i < len(raw) && raw[i] == '}' {
			return i + 1
		}
		if i >= len(raw) || raw[i] != ',' {
			return -1
		}
		i = space(raw, i+1)
	}
	return -1
}

// kid returns the node of a member, nil if it is not wanted.
func (n *node) kid(written []byte) *node {
	if bytes.IndexByte(written, '\\') >= 0 {
		quoted := append(append([]byte{'"'}, written...), '"')
		written, _ = jsontext.AppendUnquote(nil, quoted)
	}
	if n.lengths&(1<<min(len(written), 63)) == 0 {
		return nil
	}
	for _, k := range n.kids {
		if k.name == string(written) {
			return k
		}
	}
	return nil
}

// What follows walks JSON that the splitter has found valid, so that it can be
// quick; on anything else it gives up, or finds nothing.

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the index of the quote that closes the string whose first
// byte is b[i], -1 if there is none.
func stringEnd(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		k := i // behind a quote, so that the backslashes end at it
		for k > 0 && b[k-1] == '\\' {
			k--
		}
		if (i-k)%2 == 0 {
			return i
		}
		i++
	}
}

// skip returns the index behind the value that begins at b[i], -1 if it does
// not end.
func skip(b []byte, i int) int {
	switch b[i] {
	case '"':
		end := stringEnd(b, i+1)
		if end < 0 {
			return -1
		}
		return end + 1
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				if i = stringEnd(b, i+1); i < 0 {
					return -1
				}
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return i
		}
		i++
	}
	return -1
}

// value returns a member as a program is given it, and false if it is of a
// kind that the name can't be.
func (s *scratch) value(n *name) (any, bool) {
	raw := s.at(n.node)
	absent := len(raw) == 0 || raw[0] == 'n'
	switch n.kind {
	case present:
		return !absent, true
	case text:
		if absent {
			return "", true
		}
		return s.str(raw), raw[0] == '"'
	case flag:
		return !absent && raw[0] == 't', absent || raw[0] == 't' || raw[0] == 'f'
	case maybe:
		if absent {
			return nil, true
		}
		return raw[0] == 't', raw[0] == 't' || raw[0] == 'f'
	}
	if absent {
		return nil, true
	}
	return s.decode(raw)
}

const (
	// maxBoxed is how many strings are kept, and maxBox how long one may be:
	// names of services, calls, regions and identities come again and again.
	maxBoxed = 1024
	maxBox   = 64
)

// str returns what a JSON string means, and "" for what is none.
func (s *scratch) str(raw []byte) any {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') >= 0 {
		s.text, _ = jsontext.AppendUnquote(s.text[:0], raw)
		inner = s.text
	}
	if len(inner) > maxBox {
		return string(inner)
	}
	if v, ok := s.boxed[string(inner)]; ok {
		return v
	}
	if len(s.boxed) >= maxBoxed {
		clear(s.boxed)
	}
	var v any = string(inner)
	s.boxed[string(inner)] = v
	return v
}

// run asks a rule.
func (s *scratch) run(r *rule) (bool, error) {
	for _, i := range r.names {
		if s.bad[i] {
			return false, errOtherKind
		}
	}
	// What the library says may quote the record.
	v, err := s.vm.Run(r.program, s.env)
	if err != nil {
		return false, errRun
	}
	b, ok := v.(bool)
	if !ok {
		return false, errNoBool
	}
	return b, nil
}
