package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/filter"
)

// What the documentation shows of filters and forms is taken, without a
// warning.
func TestDocumentedFiltersAndForms(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```")
	for file, around := range map[string][2]string{
		"../../docs/filters.md": {"[[source]]\nname = \"s\"\nbucket = \"acme-logs\"\n", "[[output]]\nname = \"o\"\ntype = \"stdout\"\n"},
		"../../docs/formats.md": {"[[source]]\nname = \"s\"\nbucket = \"acme-logs\"\n", ""},
	} {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := blocks.FindAllStringSubmatch(string(doc), -1)
		if len(found) == 0 {
			t.Errorf("%s has no example", file)
		}
		for _, b := range found {
			c, warnings, err := config.Parse(file, []byte(around[0]+b[1]+around[1]), config.SystemEnv(), judgeFilter)
			if err != nil || len(warnings) > 0 {
				t.Errorf("%s\n%v %v", b[1], err, warnings)
				continue
			}
			if f, err := wireFilter(&c.Sources[0]); err != nil || strings.Contains(b[1], "filter") != (f != nil) {
				t.Errorf("%v, %v", f, err)
			}
		}
	}
}

func TestSelf(t *testing.T) {
	key := config.Credentials{Type: "static", AccessKeyID: "AKIA1"}
	rotating := key
	rotating.Files.AccessKeyID = "/run/key"
	profile := config.Credentials{Type: "profile", AssumeRole: []config.AssumeRole{{ARN: "first"}, {ARN: "last"}}}
	for _, c := range []struct {
		credentials config.Credentials
		want        filter.Self
	}{
		{config.Credentials{Type: "auto"}, filter.Self{Product: "trailpoll"}},
		{key, filter.Self{Product: "trailpoll", AccessKeyID: "AKIA1"}},
		{rotating, filter.Self{Product: "trailpoll"}},
		{profile, filter.Self{Product: "trailpoll", RoleARN: "last"}},
	} {
		if got := *self(&c.credentials); got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}

// An interface that holds a nil pointer would not be nil.
func TestRawNeedsNoRenderer(t *testing.T) {
	for _, c := range []struct {
		kind, record, oversize string
		none                   bool
	}{
		{config.TypeFile, "raw", "reduce", true},
		{config.TypeHTTPS, "raw", "reduce", true},
		{config.TypeSyslog, "raw", "park", true},
		{config.TypeSyslog, "raw", "reduce", false},
		{config.TypeStdout, "ocsf", "reduce", false},
	} {
		o := config.DefaultOutput(c.kind)
		o.Record, o.Syslog.Oversize = c.record, c.oversize
		form, err := wireRender(&o)
		if err != nil || (form == nil) != c.none {
			t.Errorf("%+v: %v, %v", c, form, err)
		}
	}
}
