package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the expected files anew")

// testEnv is a small world: one variable and one file that are there, and one
// of each that is empty.
func testEnv() Env {
	return Env{
		LookupEnv: func(name string) (string, bool) {
			v, ok := map[string]string{"SECRET": "from-env", "EMPTY": ""}[name]
			return v, ok
		},
		ReadFile: func(path string) ([]byte, error) {
			switch path {
			case "/run/secret":
				return []byte("from-file\r\n"), nil
			case "/run/empty":
				return []byte("\n"), nil
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		},
	}
}

// Each file in testdata/bad breaks a rule; beside it stands all that is said
// of it. Every secret in them is the word hunter2.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 80 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	shape := regexp.MustCompile(`^[\w-]+\.toml(:\d+)?: (\S+: )?\S.*; \S.*$`)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := Parse(filepath.Base(file), data, testEnv())
			if err == nil || c != nil {
				t.Fatalf("no error, or a Config beside it: %v", err)
			}
			got := err.Error() + "\n"
			want := strings.TrimSuffix(file, ".toml") + ".txt"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(expected) {
				t.Errorf("got:\n%swant:\n%s", got, expected)
			}
			for line := range strings.Lines(got) {
				if !shape.MatchString(strings.TrimSuffix(line, "\n")) {
					t.Errorf("not file:line: key: message; remedy: %s", line)
				}
			}
			if strings.Contains(got, "hunter2") {
				t.Error("a secret is in it")
			}
		})
	}
}
