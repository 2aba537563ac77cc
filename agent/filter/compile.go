package filter

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// maxNodes bounds how large an expression may be.
const maxNodes = 2000

// mistake is what is wrong with an expression.
type mistake struct{ message, remedy string }

// An expression is compiled twice. First as it is written, with the members
// and their types, so that a mistake is found where the operator made it. Then
// with each path of members (userIdentity.type) as one name, so that it can be
// looked up in the record's bytes before the program runs, and nothing else
// is.
func (l *lookup) compile(when string) (*vm.Program, []int, *mistake) {
	known := members()
	options := []expr.Option{
		expr.AsBool(),
		expr.MaxNodes(maxNodes),
		expr.DisableBuiltin("now"), // or the same record would be kept one day and dropped the next
		expr.Function(has, func(...any) (any, error) { return nil, errNotAPath }, new(func(any) bool)),
	}
	if _, err := expr.Compile(when, append(options, expr.Env(known))...); err != nil {
		return nil, nil, explain(err, known)
	}
	tree, err := parser.Parse(when)
	if err != nil {
		return nil, nil, explain(err, known)
	}
	n := &namer{look: l, known: known, env: types.Map{}}
	ast.Walk(&tree.Node, n)
	ast.Walk(&tree.Node, collector{n})
	if n.err != nil {
		return nil, nil, &mistake{where(n.err, when), n.err.remedy}
	}
	program, err := expr.Compile(when, append(options, expr.Env(n.env), expr.Patch(&namer{look: l, known: known, env: n.env}))...)
	if err != nil {
		return nil, nil, explain(err, known)
	}
	return program, n.used, nil
}

const has = "has"

var errNotAPath = errors.New("has wants a member: has(errorCode)")

// explain says what is wrong and where, in one line.
func explain(err error, known types.Map) *mistake {
	m := &mistake{message: err.Error(), remedy: "see docs/filters.md for the language and the members"}
	if e, ok := errors.AsType[*file.Error](err); ok {
		m.message = position(e.Line, e.Column+1) + ": " + e.Message
		if name, ok := strings.CutPrefix(e.Message, "unknown name "); ok {
			m.remedy = "the members are in docs/filters.md; any other is record." + name
			if near := nearest(name, known); near != "" {
				m.remedy = "did you mean " + near + "?"
			}
		} else if name, ok := strings.CutPrefix(e.Message, "unknown field "); ok {
			if near := nearest(name, known["userIdentity"].(types.Map)); near != "" {
				m.remedy = "did you mean " + near + "?"
			}
		}
	} else if strings.HasPrefix(m.message, "expected bool") {
		m.message = "it is no condition: " + m.message
		m.remedy = `write what is true or false, as eventName == "GetObject"`
	}
	m.message, _, _ = strings.Cut(m.message, "\n")
	return m
}

func position(line, column int) string {
	if line == 1 {
		return fmt.Sprintf("column %d", column)
	}
	return fmt.Sprintf("line %d, column %d", line, column)
}

// nearest returns the name that is at most two changes away, upper and lower
// case being the same.
func nearest(name string, known types.Map) string {
	best, least := "", 3
	for k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least || d == least && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance is the edit distance of Levenshtein.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// namer makes each path of members into one name. ast.Walk comes to the parts
// of a path before the whole, so that a path grows as it goes.
type namer struct {
	look  *lookup
	known types.Map
	env   types.Map // the names that are left at the end
	used  []int
	err   *positioned
}

// positioned is a mistake that the checker can't find.
type positioned struct {
	at              file.Location
	message, remedy string
}

func where(p *positioned, source string) string {
	e := (&file.Error{Location: p.at}).Bind(file.NewSource(source))
	return position(e.Line, e.Column+1) + ": " + p.message
}

// Visit is called for each node by ast.Walk.
func (n *namer) Visit(node *ast.Node) {
	switch at := (*node).(type) {
	case *ast.IdentifierNode:
		if _, ok := n.known[at.Value]; ok {
			n.name(node, []string{at.Value})
		}
	case *ast.MemberNode:
		base, ok := at.Node.(*ast.IdentifierNode)
		property, isName := at.Property.(*ast.StringNode)
		if path, isPath := n.path(base, ok); isPath && isName && !at.Method {
			n.name(node, append(slices.Clone(path), property.Value))
		}
	case *ast.ChainNode:
		if id, ok := at.Node.(*ast.IdentifierNode); ok {
			*node = id
		}
	case *ast.BinaryNode:
		if at.Operator != "==" && at.Operator != "!=" {
			return
		}
		for _, side := range [...]struct{ this, other *ast.Node }{{&at.Left, &at.Right}, {&at.Right, &at.Left}} {
			id, ok := (*side.this).(*ast.IdentifierNode)
			path, isPath := n.path(id, ok)
			if !isPath {
				continue
			}
			if _, isNil := (*side.other).(*ast.NilNode); isNil {
				n.asked(node, path, at.Operator == "==")
				return
			}
			if kindIn(id.Value) == flag {
				n.put(side.this, maybe, path)
			}
		}
	case *ast.CallNode:
		callee, ok := at.Callee.(*ast.IdentifierNode)
		if !ok || callee.Value != has || len(at.Arguments) != 1 {
			return
		}
		id, ok := at.Arguments[0].(*ast.IdentifierNode)
		if path, isPath := n.path(id, ok); isPath {
			n.asked(node, path, false)
		}
	}
}

// path returns the path that an identifier was made of.
func (n *namer) path(id *ast.IdentifierNode, ok bool) ([]string, bool) {
	if !ok {
		return nil, false
	}
	i, ok := n.look.byName[id.Value]
	if !ok {
		return nil, false
	}
	return n.look.names[i].path, true
}

// name puts the name of a path in place of a node.
func (n *namer) name(node *ast.Node, path []string) {
	k := dynamic
	if path[0] != everything {
		k = kindOf(n.known, path)
	}
	n.put(node, k, path)
}

func (n *namer) put(node *ast.Node, k kind, path []string) {
	ast.Patch(node, &ast.IdentifierNode{Value: n.look.name(k, path)})
}

// asked puts in place of a node whether the member is there, or is not.
func (n *namer) asked(node *ast.Node, path []string, not bool) {
	n.put(node, present, path)
	if not {
		ast.Patch(node, &ast.UnaryNode{Operator: "not", Node: *node})
	}
}

func kindIn(name string) kind { return kind(name[0]) }

// collector notes the names that are left when all paths have been made into
// names, and what must not be.
type collector struct{ *namer }

// Visit is called for each node by ast.Walk.
func (c collector) Visit(node *ast.Node) {
	at, ok := (*node).(*ast.IdentifierNode)
	if !ok {
		if call, ok := (*node).(*ast.CallNode); ok {
			if callee, ok := call.Callee.(*ast.IdentifierNode); ok && callee.Value == has {
				c.refuse(call.Location(), "has wants a member", "write has(errorCode)")
			}
		}
		return
	}
	i, ok := c.look.byName[at.Value]
	switch {
	case at.Value == "$env":
		c.refuse(at.Location(), "$env is not known", "write record.name for a member of any name")
	case ok && c.look.names[i].path[0] == everything && len(c.look.names[i].path) == 1:
		c.refuse(at.Location(), "record is the whole record", "name a member of it, as record.eventName")
	case ok:
		c.env[at.Value] = kindIn(at.Value).exprType()
		if !slices.Contains(c.used, i) {
			c.used = append(c.used, i)
			c.look.names[i].node = c.look.want(c.look.names[i].path)
		}
	}
}

func (c collector) refuse(at file.Location, message, remedy string) {
	if c.err == nil {
		c.err = &positioned{at, message, remedy}
	}
}

// anchored reports whether a regular expression can match only where the name
// of a member stands: a quote, a colon, and at most white space between.
func anchored(pattern string) bool {
	re, err := syntax.Parse(pattern, syntax.Perl)
	return err == nil && tied(re.Simplify())
}

func tied(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral:
		return strings.Contains(string(re.Rune), `":`)
	case syntax.OpConcat:
		quote := false // the last thing was a quote
		for _, sub := range re.Sub {
			if tied(sub) {
				return true
			}
			switch sub.Op {
			case syntax.OpLiteral:
				if quote && sub.Rune[0] == ':' {
					return true
				}
				quote = sub.Rune[len(sub.Rune)-1] == '"'
			case syntax.OpStar, syntax.OpPlus, syntax.OpQuest: // \s* between them
				quote = quote && len(sub.Sub) == 1 && sub.Sub[0].Op == syntax.OpCharClass
			default:
				quote = false
			}
		}
		return false
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(r *syntax.Regexp) bool { return !tied(r) })
	case syntax.OpCapture, syntax.OpPlus:
		return tied(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min > 0 && tied(re.Sub[0])
	}
	return false
}
