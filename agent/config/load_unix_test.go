//go:build !windows

package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	secret := strings.Replace(good, `type = "stdout"`, `type = "https"
url = "https://siem.example.com"
token = "hunter2"`, 1)
	for _, tt := range []struct {
		name    string
		text    string
		mode    fs.FileMode
		err     string // what the error begins with, behind the path
		warning string
	}{
		{"private", secret, 0o600, "", ""},
		{"readable", good, 0o644, "", ""},
		{"readable secret", secret, 0o644, "", ": output.token: others can read the file (mode 0644), and a secret stands in it; "},
		{"readable reference", strings.Replace(secret, "hunter2", "file:"+filepath.Join(dir, "secret"), 1), 0o644, "", ""},
		{"group writes", good, 0o660, ": others can write to it (mode 0660); ", ""},
		{"others write", good, 0o602, ": others can write to it (mode 0602); ", ""},
		{"too large", strings.Repeat("#", maxFile+1), 0o600, ": the file is larger than 1 MiB; ", ""},
		{"all at once", "bucket = 1\n" + good, 0o666, ": others can write to it (mode 0666); run chmod go-w on it\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, tt.name)
			if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil { // the umask may have taken some
				t.Fatal(err)
			}
			c, warnings, err := Load(path)
			if (err == nil) != (tt.err == "") || (c == nil) != (err != nil) {
				t.Fatalf("%v, %v", c, err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), path+tt.err) {
				t.Error(err)
			}
			if tt.name == "all at once" && !strings.Contains(err.Error(), ":1: bucket: ") {
				t.Error(err)
			}
			if (len(warnings) == 0) != (tt.warning == "") || len(warnings) > 0 && !strings.HasPrefix(warnings[0].String(), path+tt.warning) {
				t.Error(warnings)
			}
		})
	}
	for _, path := range []string{filepath.Join(dir, "none"), dir} {
		if c, _, err := Load(path); err == nil || c != nil || !strings.HasPrefix(err.Error(), path+": th") {
			t.Errorf("%s: %v, %v", path, c, err)
		}
	}
}

func TestJudgeAccess(t *testing.T) {
	for _, tt := range []struct {
		mode               fs.FileMode
		owner, user        int
		writable, readable bool
	}{
		{0o600, 0, 0, false, false},
		{0o600, 0, 1000, false, false},
		{0o640, 0, 1000, false, false},
		{0o644, 0, 1000, false, true},
		{0o640, 1000, 1000, false, true},
		{0o600, 1000, 1000, false, false},
		{0o600, 1001, 1000, true, false},
		{0o600, 1001, 0, true, false},
		{0o620, 0, 0, true, false},
		{0o602, 0, 0, true, false},
		{0o604, 0, 0, false, true},
	} {
		a := judgeAccess(tt.mode, tt.owner, tt.user)
		if (a.writable != "") != tt.writable || (a.readable != "") != tt.readable || (a.remedy != "") != tt.writable {
			t.Errorf("%04o of %d for %d: %+v", tt.mode, tt.owner, tt.user, a)
		}
	}
}
