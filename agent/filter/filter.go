// Package filter decides which records of a source go on. Rules are compiled
// once and asked in their order; the first that matches decides, and a record
// that none matches is kept. A rule is an expression over the record's members
// (expr-lang) or a regular expression over its bytes.
//
// Of a record, only the members that rules name are looked up, in one pass
// over its bytes; it is never decoded as a whole. Whatever goes wrong with a
// record keeps it: a filter may let too much pass, never too little.
// docs/filters.md has the language.
package filter

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/expr-lang/expr/vm"

	"github.com/trailpoll/trailpoll/agent/record"
)

// The actions of a rule.
const (
	Drop = "drop"
	Keep = "keep"
)

// Rule is one rule: an action and either When or Match.
type Rule struct {
	Action string // Drop or Keep
	When   string // an expression that is true or false
	Match  string // a regular expression (RE2) that finds something in the record's bytes
}

// Config describes the filter of one source.
type Config struct {
	Rules []Rule
	// Self, if not nil, leaves out the agent's own calls, before any rule is
	// asked.
	Self *Self
}

// Problem is what is wrong with a rule, or worth a warning.
type Problem struct {
	Rule    int    // from 0
	Key     string // action, when or match
	Message string // with the position in the expression, where there is one
	Remedy  string
}

// Problems is all that is wrong with the rules of a filter.
type Problems []Problem

// Error returns one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = fmt.Sprintf("rule %d, %s: %s; %s", q.Rule+1, q.Key, q.Message, q.Remedy)
	}
	return strings.Join(lines, "\n")
}

// Filter is compiled rules. It may be used by any number of goroutines at once.
type Filter struct {
	rules []rule
	self  *self
	look  lookup
	pool  sync.Pool // of *scratch

	selfDropped, unmatched atomic.Int64
}

// rule is a compiled Rule.
type rule struct {
	Rule
	program *vm.Program
	names   []int // of lookup.names: what the program uses
	pattern *regexp.Regexp

	matched, failed atomic.Int64
}

// Compile compiles rules. The error is of type Problems and has all that is
// wrong; the Problems beside a Filter are warnings.
func Compile(conf Config) (*Filter, Problems, error) {
	f := &Filter{rules: make([]rule, len(conf.Rules))}
	f.look.begin()
	var bad, warnings Problems
	for i := range conf.Rules {
		r := &f.rules[i]
		r.Rule = conf.Rules[i]
		b, w := r.compile(i, &f.look)
		bad, warnings = append(bad, b...), append(warnings, w...)
	}
	if len(bad) > 0 {
		return nil, nil, bad
	}
	if conf.Self != nil {
		f.self = newSelf(*conf.Self, &f.look)
	}
	f.pool.New = func() any { return f.look.newScratch() }
	return f, warnings, nil
}

func (r *rule) compile(i int, look *lookup) (bad, warnings Problems) {
	problem := func(key, message, remedy string) Problem { return Problem{i, key, message, remedy} }
	switch {
	case r.Action != Drop && r.Action != Keep:
		return Problems{problem("action", fmt.Sprintf("%q is not known", r.Action), "write drop or keep")}, nil
	case (r.When == "") == (r.Match == ""):
		return Problems{problem("when", "neither when nor match is there, or both are", "write one of them")}, nil
	case r.Match != "":
		p, err := regexp.Compile(r.Match)
		if err != nil {
			return Problems{problem("match", patternMistake(err), "correct the regular expression (RE2)")}, nil
		}
		if p.MatchString("") {
			bad = append(bad, problem("match", "it matches every record, since it matches nothing at all", "write what must stand in the record"))
			return bad, nil
		}
		r.pattern = p
		if r.Action == Drop && !anchored(r.Match) {
			warnings = append(warnings, problem("match",
				"it is not tied to a member, and also matches what others can write into a record: user agents, names, parameters",
				`begin it with the member's name, as "eventName":"(List|Describe), or write when`))
		}
		return nil, warnings
	}
	program, names, mistake := look.compile(r.When)
	if mistake != nil {
		return Problems{problem("when", mistake.message, mistake.remedy)}, nil
	}
	r.program, r.names = program, names
	if r.Action == Drop && look.onlyChosen(names) {
		warnings = append(warnings, problem("when",
			"it decides by nothing but what the caller of a call can choose, who can so hide it",
			"tie it to who called as well, for example by userIdentity.arn"))
	}
	return nil, warnings
}

// patternMistake says what is wrong with a regular expression.
func patternMistake(err error) string {
	return strings.TrimPrefix(err.Error(), "error parsing regexp: ")
}

// Why says what decided about a record.
type Why int

// What can decide: a rule, by its number from 0, or one of these.
const (
	Nothing Why = -1 // no rule matched: kept
	IsSelf  Why = -2 // a call of the agent's own: dropped
)

// Decision is what a filter says of a record.
type Decision struct {
	Keep   bool
	By     Why
	Failed error // why the rule could not be asked; the record is kept then
}

// Keep reports whether the record goes on, and counts it.
func (f *Filter) Keep(r *record.Record) bool {
	return f.Decide(r).Keep
}

// Decide says whether the record goes on and what decided so, and counts it.
// An error in it holds nothing of the record.
func (f *Filter) Decide(r *record.Record) Decision {
	s := f.pool.Get().(*scratch)
	defer f.pool.Put(s)
	defer s.forget()
	readable := s.find(&f.look, r.Raw)
	if f.self != nil && readable && f.self.is(s, r) {
		f.selfDropped.Add(1)
		return Decision{By: IsSelf}
	}
	for i := range f.rules {
		rule := &f.rules[i]
		matches, err := rule.matches(s, r.Raw, readable)
		switch {
		case err != nil:
			rule.failed.Add(1)
			return Decision{Keep: true, By: Why(i), Failed: err}
		case matches:
			rule.matched.Add(1)
			return Decision{Keep: rule.Action == Keep, By: Why(i)}
		}
	}
	f.unmatched.Add(1)
	return Decision{Keep: true, By: Nothing}
}

func (r *rule) matches(s *scratch, raw []byte, readable bool) (bool, error) {
	if r.pattern != nil {
		return r.pattern.Match(raw), nil
	}
	if !readable {
		return false, errUnreadable
	}
	return s.run(r)
}

// Count is how often a rule decided.
type Count struct {
	Rule
	Matched int64
	Failed  int64 // records kept because the rule could not be asked of them
}

// Counts is what a filter has done since it was made.
type Counts struct {
	Rules     []Count
	Self      int64 // the agent's own calls, dropped
	Unmatched int64 // kept since no rule matched
}

// Counts returns what the filter has done so far.
func (f *Filter) Counts() Counts {
	c := Counts{Self: f.selfDropped.Load(), Unmatched: f.unmatched.Load()}
	for i := range f.rules {
		r := &f.rules[i]
		c.Rules = append(c.Rules, Count{Rule: r.Rule, Matched: r.matched.Load(), Failed: r.failed.Load()})
	}
	return c
}
