package control_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/control"
)

// What operators copy from docs names only metrics that there are.
func TestDocsNameMetricsThatThereAre(t *testing.T) {
	rw := httptest.NewRecorder()
	control.NewWeb(webConfig(wide, "")).ServeHTTP(rw, httptest.NewRequest("GET", "http://h/metrics", nil))
	exported := map[string]bool{"trailpoll": true} // the dashboard's own name
	for line := range strings.Lines(rw.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			name, _, _ := strings.Cut(strings.Fields(line)[0], "{")
			exported[name] = true
		}
	}
	names := regexp.MustCompile(`\b(?:trailpoll|process|go)_[a-z_0-9]+`)
	for _, file := range []string{"alerts.yml", "grafana-dashboard.json", "operations.md"} {
		b, err := os.ReadFile("../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, name := range names.FindAllString(string(b), -1) {
			if file == "operations.md" && exported[name+"_bucket"] {
				continue // a histogram as a whole
			}
			if found++; !exported[name] {
				t.Errorf("docs/%s names %s, which is not exported", file, name)
			}
		}
		if found == 0 {
			t.Errorf("docs/%s names no metric", file)
		}
	}
}

// Each alert says what to do in operations.md, under its name.
func TestAlertsAreExplained(t *testing.T) {
	rules, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	if len(all) == 0 {
		t.Fatal("no alerts")
	}
	for _, a := range all {
		if !strings.Contains(string(doc), a[1]) {
			t.Errorf("docs/operations.md does not explain %s", a[1])
		}
	}
}

func TestDashboardIsJSON(t *testing.T) {
	b, err := os.ReadFile("../../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(b, &d); err != nil || len(d.Panels) == 0 {
		t.Fatalf("%d panels, %v", len(d.Panels), err)
	}
	for _, p := range d.Panels {
		if p.Title == "" || len(p.Targets) == 0 || p.Targets[0].Expr == "" {
			t.Errorf("%+v", p)
		}
	}
}

// TestPromtool has Prometheus' own tool check the rules, the expressions of the
// dashboard and the metrics, and see each alert fire where it has to.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		tool = filepath.Join(os.Getenv("TRAILPOLL_CI_CACHE"), "bin", "promtool")
		if _, err := os.Stat(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("promtool is missing")
			}
			t.Skip("promtool is not there (Debian: package prometheus)")
		}
	}
	run := func(stdin string, dir string, args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), tool, args...)
		c.Dir, c.Stdin = dir, strings.NewReader(stdin)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run("", ".", "check", "rules", "../../docs/alerts.yml")
	run("", "testdata", "test", "rules", "alerts_test.yml")
	rw := httptest.NewRecorder()
	control.NewWeb(webConfig(wide, "")).ServeHTTP(rw, httptest.NewRequest("GET", "http://h/metrics", nil))
	run(rw.Body.String(), ".", "check", "metrics")

	// The dashboard's expressions, as recording rules.
	b, err := os.ReadFile("../../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	rules := []map[string]string{}
	for i, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(string(b), -1) {
		var expr string
		if err := json.Unmarshal([]byte(m[1]), &expr); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, map[string]string{"record": "r" + strings.Repeat("x", i), "expr": expr})
	}
	text, _ := json.Marshal(map[string]any{"groups": []map[string]any{{"name": "g", "rules": rules}}}) // JSON is YAML
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run("", ".", "check", "rules", file)
}
