package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The map in the package's comment has every file.
func TestMapNamesEveryFile(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if f == "doc.go" || strings.HasSuffix(f, "_test.go") {
			continue
		}
		if !strings.Contains(string(doc), " "+f) {
			t.Errorf("say in doc.go what %s is for", f)
		}
	}
}
