package s3source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// bare takes away what the environment says of AWS, and leaves shared files
// with credentials that nobody should use unasked.
func bare(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "credentials"), "[default]\naws_access_key_id = AKHOME\naws_secret_access_key = x\n")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func using(c Credentials) func(*Config) { return func(cfg *Config) { cfg.Credentials = c } }

func TestStaticUsesNothingElse(t *testing.T) {
	bare(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	t.Setenv("AWS_REGION", "ap-south-1")
	srv := server(t, s3test.Config{Region: "eu-west-1"})
	if err := calls(t.Context(), at(t, srv.URL()), "list"); err != nil {
		t.Error(err)
	}
	s := at(t, srv.URL(), using(Credentials{Type: Static, AccessKeyID: "AKOTHER", SecretAccessKey: "x"}))
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.BadCredentials {
		t.Errorf("a wrong key fell through to another: %v", err)
	}
}

func TestAutoCredentials(t *testing.T) {
	bare(t)
	srv := server(t, s3test.Config{AccessKey: "AKENV"})
	s := at(t, srv.URL(), using(Credentials{Type: AutoCredentials}))
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.BadCredentials {
		t.Errorf("with the shared files': %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	if err := calls(t.Context(), s, "list"); err != nil {
		t.Errorf("with the environment's, looked for again: %v", err)
	}
}

func TestNoCredentials(t *testing.T) {
	bare(t)
	srv := server(t, s3test.Config{})
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	for _, region := range []string{"eu-west-1", Auto} {
		s := at(t, srv.URL(), using(Credentials{}), func(c *Config) { c.Region = region })
		for _, op := range []string{"list", "get", "head"} {
			err := calls(t.Context(), s, op)
			if fault.KindOf(err) != fault.BadCredentials || !strings.Contains(err.Error(), "getting credentials") ||
				!strings.Contains(fault.HintOf(err), "[source.credentials]") {
				t.Errorf("%s: %v, hint %q", op, err, fault.HintOf(err))
			}
		}
	}
	if n := srv.Count(s3test.ListObjectsV2); n != 0 {
		t.Errorf("%d unsigned requests", n)
	}
}

func TestProfile(t *testing.T) {
	bare(t)
	// The environment's keys are not those of a profile.
	t.Setenv("AWS_ACCESS_KEY_ID", "AKENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_PROFILE", "elsewhere")
	// Nor are a container's, to which the SDK goes on.
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")
	dir := t.TempDir()
	creds, config := filepath.Join(dir, "credentials"), filepath.Join(dir, "config")
	write(t, creds, "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = x\n"+
		"[audit]\naws_access_key_id = AKAUDIT\naws_secret_access_key = x\n"+
		"[half]\naws_access_key_id = AKHALF\n"+
		"[secretive]\ncredential_process = /bin/echo not-json hunter2\n")
	write(t, config, "[profile ops]\naws_access_key_id = AKOPS\naws_secret_access_key = x\n"+
		"[profile empty]\nregion = eu-west-1\n"+
		"[profile chained]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = empty\n")

	for _, tt := range []struct {
		name    string
		profile string
		files   []string
		key     string // that is used; "" = none
		text    string
	}{
		{"default", "", []string{creds}, "AKDEFAULT", ""},
		{"credentials file", "audit", []string{creds}, "AKAUDIT", ""},
		{"config file", "ops", []string{config}, "AKOPS", ""},
		{"both files", "audit", []string{config, creds}, "AKAUDIT", ""},
		{"the usual files", "", nil, "AKHOME", ""},
		{"missing", "nobody", []string{creds}, "", "nobody"},
		{"missing file", "audit", []string{filepath.Join(dir, "none")}, "", "none: "},
		{"without keys", "empty", []string{config}, "", `the profile "empty" holds no credentials`},
		{"chain without keys", "chained", []string{config}, "", "failed to load assume role"},
		{"half a key", "half", []string{creds}, "", ""},
		{"process with bad output", "secretive", []string{creds}, "", "the output of credential_process is not what it should be"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := tt.key
			if key == "" {
				key = "AKNONE"
			}
			srv := server(t, s3test.Config{AccessKey: key})
			s := at(t, srv.URL(), using(Credentials{Type: Profile, Profile: tt.profile, SharedFiles: tt.files}))
			err := calls(t.Context(), s, "list")
			if tt.key != "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if fault.KindOf(err) != fault.BadCredentials || !strings.Contains(err.Error(), tt.text) || fault.HintOf(err) == "" {
				t.Errorf("%v: %v, hint %q", fault.KindOf(err), err, fault.HintOf(err))
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the process's output is in %v", err)
			}
			if srv.Count(s3test.ListObjectsV2) != 0 {
				t.Error("something was signed with other credentials")
			}
		})
	}
}

// Keys that were exchanged in the file are found without a restart.
func TestProfileIsReadAgain(t *testing.T) {
	bare(t)
	file := filepath.Join(t.TempDir(), "credentials")
	write(t, file, "[default]\naws_access_key_id = AKOLD\naws_secret_access_key = x\n")
	srv := server(t, s3test.Config{AccessKey: "AKNEW"})
	s := at(t, srv.URL(), using(Credentials{Type: Profile, SharedFiles: []string{file}}))
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.BadCredentials {
		t.Error(err)
	}
	write(t, file, "[default]\naws_access_key_id = AKNEW\naws_secret_access_key = x\n")
	if err := calls(t.Context(), s, "list"); err != nil {
		t.Error(err)
	}
}
