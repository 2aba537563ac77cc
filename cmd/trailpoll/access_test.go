package main

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/s3source"
	"github.com/trailpoll/trailpoll/installer/aws"
)

var block = regexp.MustCompile("(?s)```([a-z]+)( [a-z-]+)?\n(.*?)```")

// What docs/access.md gives to paste is valid, can be wired, and is what Render
// makes.
func TestAccessDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	const user, role = "arn:aws:iam::111122223333:user/trailpoll", "arn:aws:iam::222233334444:role/trailpoll-read"
	setup := aws.Setup{Bucket: "acme-cloudtrail-logs", Reader: user, Roles: []string{role}, ExternalID: "the-external-id"}
	withKey := setup
	withKey.KMSKeys = []string{"arn:aws:kms:eu-central-1:222233334444:key/1234abcd-12ab-34cd-56ef-1234567890ab"}
	want := map[string]string{"policy-key": asJSON(t, withKey.ReadPolicy().Statement[2])}
	rename := map[string]string{"identity": "policy", "trust": "trust", "assume": "assume", "key": "key"}
	for _, s := range []aws.Setup{withKey, setup} {
		docs, err := aws.Render(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if name := rename[d.Name]; name != "" {
				want[name] = d.JSON
			}
		}
	}
	direct := aws.Setup{Partition: "aws", Bucket: setup.Bucket}
	want["bucket"] = asJSON(t, direct.BucketStatements(user))

	tomls := 0
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		kind, name, content := m[1], strings.TrimSpace(m[2]), m[3]
		switch kind {
		case "json":
			if !sameJSON(t, content, want[name]) {
				t.Errorf("%s is\n%swant\n%s", name, content, want[name])
			}
			delete(want, name)
		case "toml":
			tomls++
			if !strings.Contains(content, "[[source]]") {
				content = "[[source]]\nname = \"s\"\nbucket = \"acme-cloudtrail-logs\"\n" + content
			}
			env := config.Env{ReadFile: func(string) ([]byte, error) { return []byte("AKFROMFILE\n"), nil }}
			c, warnings, err := config.Parse("access.md", []byte(content+"\n[[output]]\nname = \"o\"\ntype = \"stdout\"\n"), env)
			if err != nil || len(warnings) > 0 {
				t.Errorf("%v %v:\n%s", err, warnings, content)
				continue
			}
			store, err := s3source.New(bucketConfig(&c.Agent, &c.Sources[0]))
			if err != nil {
				t.Errorf("%v:\n%s", err, content)
				continue
			}
			store.Close()
		}
	}
	if len(want) > 0 || tomls < 8 {
		t.Errorf("not there: %v; %d configurations", want, tomls)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Errorf("%v: %s", err, a)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}
