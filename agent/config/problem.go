package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Problem is one thing that is wrong with a configuration. It holds no secret.
type Problem struct {
	File    string // "" if the configuration did not come from a file
	Line    int    // from 1; 0 if unknown
	Key     string // dotted, e.g. source.bucket; "" if it concerns the whole file
	Message string // what is wrong
	Remedy  string // what to do about it
}

// String returns the problem on one line: file:line: key: message; remedy.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(oneLine(p.File))
		if p.Line > 0 {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(p.Remedy)
	}
	return b.String()
}

func oneLine(s string) string {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return strconv.Quote(s)
	}
	return s
}

// Warning is something that is allowed but that an operator should know.
type Warning Problem

// String returns the warning on one line, as Problem does.
func (w Warning) String() string { return Problem(w).String() }

// Errors is all that is wrong with a configuration, in the order of the file.
// It is never empty when it is returned.
type Errors []Problem

// Error returns one problem a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// findings collects problems and warnings, and knows where each key stands.
type findings struct {
	doc      *document // nil: not from a file
	failed   map[string]bool
	problems Errors
	warnings []Warning
}

func newFindings(doc *document) *findings {
	return &findings{doc: doc, failed: map[string]bool{}}
}

// bad adds a problem with the key at path. Where the key could not even be
// decoded that has been said, and its default is not to be judged.
func (f *findings) bad(path, message, remedy string) {
	if !f.failed[path] {
		f.problems = append(f.problems, f.at(path, message, remedy))
	}
}

// undecodable adds a problem and keeps later steps from judging the key.
func (f *findings) undecodable(path, message, remedy string) {
	f.bad(path, message, remedy)
	f.failed[path] = true
}

func (f *findings) warn(path, message, remedy string) {
	f.warnings = append(f.warnings, Warning(f.at(path, message, remedy)))
}

func (f *findings) at(path, message, remedy string) Problem {
	p := Problem{Key: display(path), Message: message, Remedy: remedy}
	if f.doc != nil {
		p.File, p.Line = f.doc.name, f.doc.line(path)
	}
	return p
}

// isSet reports whether the key stands in the file.
func (f *findings) isSet(path string) bool {
	return f.doc != nil && f.doc.lines[path] > 0
}

// result returns the findings in the order of the file; of the same line, in
// the order in which they were found.
func (f *findings) result() ([]Warning, error) {
	slices.SortStableFunc(f.warnings, func(a, b Warning) int { return cmp.Compare(a.Line, b.Line) })
	if len(f.problems) == 0 {
		return f.warnings, nil
	}
	slices.SortStableFunc(f.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return f.warnings, f.problems
}
