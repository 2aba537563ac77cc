package filter

import (
	"os"
	"strings"
	"testing"

	"github.com/expr-lang/expr/types"
)

// Every member that expressions know is documented.
func TestDocumentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/filters.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(m types.Map)
	walk = func(m types.Map) {
		for name, of := range m {
			if !strings.Contains(string(doc), "`"+name+"`") && name != everything {
				t.Errorf("%s is not documented", name)
			}
			if m, ok := of.(types.Map); ok {
				walk(m)
			}
		}
	}
	walk(members())
	for source, names := range calls {
		for _, name := range append(names, source) {
			if !strings.Contains(string(doc), name) {
				t.Errorf("%s is not documented", name)
			}
		}
	}
}
