package config

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sourceOf(t testing.TB, lines string) (*Source, []Warning) {
	t.Helper()
	text := "[[source]]\nname = \"s\"\n" + lines + "\n[[output]]\nname = \"o\"\ntype = \"stdout\"\n"
	c, warnings, err := Parse("f.toml", []byte(text), testEnv())
	if err != nil {
		t.Fatalf("%s: %v", lines, err)
	}
	return &c.Sources[0], warnings
}

// What is plain is taken as it is meant, and said.
func TestUnderstood(t *testing.T) {
	for _, tt := range []struct {
		lines          string
		bucket, prefix string
		scope          Scope
		region         string
		warning        string // in the remedies; "" = no warning
	}{
		{lines: `bucket = "acme-logs"`, bucket: "acme-logs"},
		{lines: "bucket = \"acme-logs\"\nprefix = \"a/b\"", bucket: "acme-logs", prefix: "a/b"},
		{lines: `bucket = "acme-logs/folder/"`, bucket: "acme-logs", prefix: "folder", warning: `bucket = "acme-logs" and prefix = "folder"`},
		{lines: `bucket = "acme-logs/"`, bucket: "acme-logs", warning: `bucket = "acme-logs"`},
		{lines: `bucket = "s3://acme-logs"`, bucket: "acme-logs", warning: `bucket = "acme-logs"`},
		{lines: `bucket = "s3://acme-logs/a/b/"`, bucket: "acme-logs", prefix: "a/b", warning: `prefix = "a/b"`},
		{lines: "bucket = \"s3://acme-logs/a\"\nprefix = \"a/\"", bucket: "acme-logs", prefix: "a", warning: `prefix = "a"`},
		{lines: `bucket = "arn:aws:s3:::acme-logs"`, bucket: "acme-logs", warning: `bucket = "acme-logs"`},
		{lines: `bucket = "arn:aws-cn:s3:::acme-logs/a/*"`, bucket: "acme-logs", prefix: "a", warning: `prefix = "a"`},
		{lines: `bucket = "s3://acme-logs/a/AWSLogs/"`, bucket: "acme-logs", prefix: "a", warning: `prefix = "a"`},
		{lines: "bucket = \"acme-logs\"\nprefix = \"logs/\"", bucket: "acme-logs", prefix: "logs", warning: `prefix = "logs"`},
		{lines: "bucket = \"acme-logs\"\nprefix = \"AWSLogs\"", bucket: "acme-logs", warning: `prefix = ""`},
		{lines: "bucket = \"acme-logs\"\nprefix = \"logs/AWSLogs/\"", bucket: "acme-logs", prefix: "logs", warning: `prefix = "logs"`},
		{lines: "bucket = \"acme-logs\"\nprefix = \"AWSLogs/111122223333\"", bucket: "acme-logs",
			scope: Scope{Organizations: []string{"none"}, Accounts: []string{"111122223333"}}, warning: `accounts = ["111122223333"]`},
		{lines: "bucket = \"acme-logs\"\nprefix = \"AWSLogs/111122223333\"\naccounts = [\"111122223333\"]", bucket: "acme-logs",
			scope: Scope{Organizations: []string{"none"}, Accounts: []string{"111122223333"}}, warning: `prefix = ""`},
		{lines: "bucket = \"acme-logs\"\nprefix = \"x/AWSLogs/o-a1b2c3d4e5/111122223333/CloudTrail/eu-west-1/\"", bucket: "acme-logs", prefix: "x",
			scope: Scope{Organizations: []string{"o-a1b2c3d4e5"}, Accounts: []string{"111122223333"},
				LogTypes: []string{"CloudTrail"}, Regions: []string{"eu-west-1"}}, warning: `regions = ["eu-west-1"]`},
		{lines: "bucket = \"acme-logs\"\nregion = \"EU_IRELAND\"", bucket: "acme-logs", region: "eu-west-1", warning: `region = "eu-west-1"`},
		{lines: "bucket = \"acme-logs\"\nregion = \"US_STANDARD\"", bucket: "acme-logs", region: "us-east-1", warning: `region = "us-east-1"`},
		{lines: "bucket = \"acme-logs\"\nregion = \"US_WEST_OREGON\"", bucket: "acme-logs", region: "us-west-2", warning: `region = "us-west-2"`},
		{lines: "bucket = \"acme-logs\"\nregion = \"eu-north-9\"", bucket: "acme-logs", region: "eu-north-9"},
		{lines: "bucket = \"acme-logs\"\nregion = \"garage\"\nendpoint = \"https://s3.example.com\"", bucket: "acme-logs", region: "garage"},
	} {
		s, warnings := sourceOf(t, tt.lines)
		want := tt.region
		if want == "" {
			want = "auto"
		}
		if s.Bucket.Name != tt.bucket || s.Bucket.Prefix != tt.prefix || s.Bucket.Region != want {
			t.Errorf("%s: %s, %q, %s", tt.lines, s.Bucket.Name, s.Bucket.Prefix, s.Bucket.Region)
		}
		if !slices.Equal(s.Scope.Organizations, tt.scope.Organizations) || !slices.Equal(s.Scope.Accounts, tt.scope.Accounts) ||
			!slices.Equal(s.Scope.LogTypes, tt.scope.LogTypes) || !slices.Equal(s.Scope.Regions, tt.scope.Regions) {
			t.Errorf("%s: %+v", tt.lines, s.Scope)
		}
		said := ""
		for _, w := range warnings {
			said += w.Remedy + "\n"
		}
		if !strings.Contains(said, tt.warning) || (said == "") != (tt.warning == "") {
			t.Errorf("%s: warnings %v", tt.lines, warnings)
		}
	}
}

// Whatever way a place is written in, it is the same place, and what is
// understood is what the remedy says to write.
func TestUnderstoodAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bucket := rapid.StringMatching(`[a-z][a-z0-9-]{1,20}[a-z]`).Draw(t, "bucket")
		prefix := strings.Join(rapid.SliceOfN(rapid.StringMatching(`[A-Za-z0-9_-]{1,9}`), 0, 3).Draw(t, "prefix"), "/")
		slash := ""
		if prefix != "" {
			slash = "/"
		}
		for _, form := range []string{
			"bucket = %b/%p", "bucket = s3://%b%s%p", "bucket = s3://%b%s%p/", "bucket = arn:aws:s3:::%b%s%p",
			"bucket = %b\nprefix = %p%sAWSLogs", "bucket = %b\nprefix = %p%sAWSLogs/", "bucket = %b/%p%sAWSLogs/",
		} {
			f := findings{failed: map[string]bool{}}
			s := DefaultSource()
			for line := range strings.Lines(strings.NewReplacer("%b", bucket, "%p", prefix, "%s", slash).Replace(form)) {
				k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
				if k == "bucket" {
					s.Bucket.Name = v
				} else {
					s.Bucket.Prefix = v
				}
			}
			f.understand("source[0]", &s)
			if s.Bucket.Name != bucket || s.Bucket.Prefix != prefix || len(f.problems) > 0 || len(f.warnings) == 0 {
				t.Fatalf("%s: %q, %q; %v %v", form, s.Bucket.Name, s.Bucket.Prefix, f.problems, f.warnings)
			}
		}
	})
}

// A key in a file is read again; what is not in one stays.
func TestReread(t *testing.T) {
	s, _ := sourceOf(t, "bucket = \"acme-logs\"\n[source.credentials]\ntype = \"static\"\naccess_key_id = \"AK\"\nsecret_access_key = \"file:/run/secret\"")
	if s.Credentials.Files != (KeyFiles{SecretAccessKey: "/run/secret"}) {
		t.Fatalf("%+v", s.Credentials.Files)
	}
	env := Env{ReadFile: func(path string) ([]byte, error) { return []byte("rotated\n"), nil }}
	got, err := s.Credentials.Reread(env)
	if err != nil || got.SecretAccessKey.Reveal() != "rotated" || got.AccessKeyID != "AK" || !got.SessionToken.Empty() {
		t.Errorf("%+v, %v", got, err)
	}
	if s.Credentials.SecretAccessKey.Reveal() != "from-file" {
		t.Error("what was loaded has changed")
	}
	for _, content := range []string{"", "hunter2\x00", "hunter2\nhunter2"} {
		env.ReadFile = func(string) ([]byte, error) { return []byte(content), nil }
		if _, err := s.Credentials.Reread(env); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "secret_access_key: ") {
			t.Errorf("%q: %v", content, err)
		}
	}
}
