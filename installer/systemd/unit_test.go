package systemd

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	plain, err := Unit{}.Text()
	if err != nil || plain != unit {
		t.Fatalf("the zero Unit is not the one that is shipped: %v", err)
	}
	got, err := Unit{
		Program: "/opt/tp%/trailpoll", Config: "/srv/tp.toml", Secrets: "/srv/secrets",
		Writable: []string{"/var/lib/trailpoll/x", "/data/state", "/var/log/trailpoll"},
	}.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nExecStart=/opt/tp%%/trailpoll run --config /srv/tp.toml\n",
		"\nExecReload=/opt/tp%%/trailpoll reload --config /srv/tp.toml\n",
		"\nLoadCredential=secret:/srv/secrets\n",
		"\nReadWritePaths=-/data/state\nUMask=",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Count(got, "ReadWritePaths=") != 1 || strings.Contains(got, program) {
		t.Errorf("what belongs to the packages is left in\n%s", got)
	}
}

// A path can't add a line, a word or a variable to the unit.
func TestTextRefuses(t *testing.T) {
	for _, path := range []string{"trailpoll", "/a b", "/a\nUser=root", "/a\tb", `/a"b`, "/a/../b", "/a/", "/a$HOME", "/a;b", `/a\x20b`, "/a\u00a0b"} {
		for name, u := range map[string]Unit{"program": {Program: path}, "config": {Config: path}, "writable": {Writable: []string{path}}} {
			if text, err := u.Text(); err == nil {
				t.Errorf("%s %q: taken\n%s", name, path, text)
			}
		}
	}
}
