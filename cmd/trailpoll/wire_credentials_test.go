package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/s3source"
)

// Every key of [source.credentials] arrives where it is used.
func TestWireCredentials(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	put := func(value string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	role := s3source.Role{ARN: "arn:aws:iam::111122223333:role/r", ExternalID: "x", SessionName: "nn", Duration: time.Hour}
	plain := s3source.Role{ARN: "arn:aws:iam::111122223333:role/s", SessionName: "trailpoll", Duration: time.Hour}
	const roles = `
[[source.credentials.assume_role]]
arn = "arn:aws:iam::111122223333:role/r"
external_id = "x"
session_name = "nn"
[[source.credentials.assume_role]]
arn = "arn:aws:iam::111122223333:role/s"
`
	for keys, want := range map[string]s3source.Credentials{
		"": {Type: s3source.AutoCredentials},
		"type = 'static'\naccess_key_id = 'AK'\nsecret_access_key = 's'\nsession_token = 't'": {
			Type: s3source.Static, AccessKeyID: "AK", SecretAccessKey: "s", SessionToken: "t"},
		"type = 'profile'\nprofile = 'p'\nshared_files = ['/f']": {Type: s3source.Profile, Profile: "p", SharedFiles: []string{"/f"}},
		"type = 'ec2-role'\nimds_endpoint = 'http://127.0.0.1:1'\nsts_endpoint = 'https://sts.example.com'" + roles: {
			Type: s3source.EC2Role, IMDSEndpoint: "http://127.0.0.1:1", STSEndpoint: "https://sts.example.com", Roles: []s3source.Role{role, plain}},
		"type = 'container'":              {Type: s3source.Container},
		"type = 'process'\ncommand = 'c'": {Type: s3source.Process, Command: "c"},
		"type = 'web-identity'\ntoken_file = '/t'\n[[source.credentials.assume_role]]\narn = 'arn:aws:iam::111122223333:role/s'": {
			Type: s3source.WebIdentity, TokenFile: "/t", Roles: []s3source.Role{plain}},
	} {
		c := parsed(t, keys)
		got := wireCredentials(c)
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", keys, d)
		}
	}

	// What came from a file comes from it again.
	got := wireCredentials(parsed(t, "type = 'static'\naccess_key_id = 'AK'\nsecret_access_key = 'file:"+filepath.ToSlash(file)+"'"))
	put("second")
	keys, err := got.Reload()
	if want := (s3source.Keys{AccessKeyID: "AK", SecretAccessKey: "second"}); err != nil || keys != want || got.SecretAccessKey != "first" {
		t.Errorf("%v, %v", keys == want, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := got.Reload(); err == nil {
		t.Error("a file that is gone is no error")
	}
}

func parsed(t *testing.T, keys string) *config.Credentials {
	t.Helper()
	text := "[[source]]\nname = 's'\nbucket = 'acme-logs'\n[source.credentials]\n" + keys + "\n[[output]]\nname = 'o'\ntype = 'stdout'\n"
	c, _, err := config.Parse("f.toml", []byte(text), config.SystemEnv())
	if err != nil {
		t.Fatal(err)
	}
	return &c.Sources[0].Credentials
}
