package config

import (
	"slices"
	"strings"

	"github.com/trailpoll/trailpoll/regions"
)

// understand takes what is plain though it is not written as it should be: a
// bucket with its folder, an s3:// address or an ARN, and a prefix that goes on
// into AWSLogs/. It says so with a warning. What may mean two things is left as
// it is, to be judged.
func (f *findings) understand(at string, s *Source) {
	f.place(at, &s.Bucket)
	f.folders(at, s)
}

// place takes apart what stands in bucket.
func (f *findings) place(at string, b *Bucket) {
	path := child(at, "bucket")
	var said string
	rest := b.Name
	switch {
	case strings.HasPrefix(rest, "arn:"):
		part := strings.SplitN(rest, ":", 6)
		if len(part) != 6 || part[2] != "s3" || part[3] != "" || part[4] != "" {
			f.bad(path, "this is the ARN of something else than a bucket", "write the bucket's name only")
			f.failed[path] = true
			return
		}
		if p, ok := regions.PartitionOf(b.Region); ok && p.ID != part[1] {
			f.bad(path, "this is a bucket of partition "+part[1]+", and region "+b.Region+" is of "+p.ID, "check region")
		}
		rest, said = strings.TrimSuffix(part[5], "*"), "an ARN"
	case strings.HasPrefix(rest, "s3://"):
		rest, said = strings.TrimPrefix(rest, "s3://"), "an address"
	case strings.Contains(rest, "://"):
		f.bad(path, "this is the URL of a server", "write the bucket's name only; what follows it in the path goes into prefix, and a server that is not AWS's into endpoint")
		f.failed[path] = true
		return
	case strings.Contains(rest, "/"):
		said = "a bucket and a folder"
	default:
		return
	}
	name, folder, _ := strings.Cut(rest, "/")
	if name == "" || strings.Contains(name, ":") {
		return
	}
	folder = strings.TrimSuffix(folder, "/")
	if own := strings.TrimSuffix(b.Prefix, "/"); folder != "" && own != "" && own != folder {
		f.bad(path, quoted(b.Name)+" names a folder, and prefix another", "write the bucket's name only, and the folder in prefix")
		f.failed[path] = true
		return
	}
	b.Name = name
	remedy := "write bucket = " + quoted(name)
	if folder != "" {
		b.Prefix = folder
		remedy += " and prefix = " + quoted(folder)
	}
	f.warn(path, "this is "+said+", and is taken apart", remedy)
}

// folders takes apart a prefix that goes on into AWSLogs/: what follows are the
// levels of a stream's prefix, each of which has a key of its own.
func (f *findings) folders(at string, s *Source) {
	path := child(at, "prefix")
	if p, ok := strings.CutSuffix(s.Bucket.Prefix, "/"); ok && p != "" && !strings.HasSuffix(p, "/") {
		if p != "AWSLogs" && !strings.Contains(p, "AWSLogs") {
			f.warn(path, quoted(s.Bucket.Prefix)+" ends with a slash, which stands there anyway", "write prefix = "+quoted(p))
		}
		s.Bucket.Prefix = p
	}
	levels := strings.Split(s.Bucket.Prefix, "/")
	i := slices.Index(levels, "AWSLogs")
	if i < 0 {
		return
	}
	pinned, ok := levelsBelow(levels[i+1:])
	if !ok || !agrees(pinned, &s.Scope) {
		return // said by prefix
	}
	before := strings.Join(levels[:i], "/")
	remedy := "write prefix = " + quoted(before)
	for _, l := range []struct {
		key string
		was *[]string
		now []string
	}{
		{"organizations", &s.Scope.Organizations, pinned.Organizations},
		{"accounts", &s.Scope.Accounts, pinned.Accounts},
		{"log_types", &s.Scope.LogTypes, pinned.LogTypes},
		{"regions", &s.Scope.Regions, pinned.Regions},
	} {
		if len(l.now) > 0 {
			*l.was = l.now
			remedy += ", " + l.key + " = [" + quoted(l.now[0]) + "]"
		}
	}
	s.Bucket.Prefix = before
	f.warn(path, "the prefix is what comes before AWSLogs/, and is taken for that", remedy)
}

// levelsBelow reads the levels below AWSLogs/: [o-…/][account[/log type[/region]]].
func levelsBelow(levels []string) (Scope, bool) {
	var s Scope
	if len(levels) > 0 && organizationPattern.MatchString(levels[0]) {
		s.Organizations, levels = levels[:1], levels[1:]
	} else if len(levels) > 0 {
		s.Organizations = []string{"none"}
	}
	for i, take := range []struct {
		to *[]string
		ok func(string) bool
	}{
		{&s.Accounts, accountPattern.MatchString},
		{&s.LogTypes, func(t string) bool { return slices.Contains(logTypes, t) }},
		{&s.Regions, regionPattern.MatchString},
	} {
		if i >= len(levels) {
			return s, true
		}
		if !take.ok(levels[i]) {
			return s, false
		}
		*take.to = levels[i : i+1]
	}
	return s, len(levels) <= 3
}

// agrees reports whether a prefix says nothing else than the keys do.
func agrees(p Scope, s *Scope) bool {
	same := func(now, was []string) bool { return len(now) == 0 || len(was) == 0 || slices.Equal(now, was) }
	return same(p.Organizations, s.Organizations) && same(p.Accounts, s.Accounts) &&
		same(p.LogTypes, s.LogTypes) && same(p.Regions, s.Regions)
}
