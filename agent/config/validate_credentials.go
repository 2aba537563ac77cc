package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/regions"
)

// credentialKeys says which types have a key.
func credentialKeys(c *Credentials) []struct {
	key   string
	set   bool
	types []string
} {
	return []struct {
		key   string
		set   bool
		types []string
	}{
		{"access_key_id", c.AccessKeyID != "", []string{"static"}},
		{"secret_access_key", !c.SecretAccessKey.Empty(), []string{"static"}},
		{"session_token", !c.SessionToken.Empty(), []string{"static"}},
		{"profile", c.Profile != "", []string{"profile"}},
		{"shared_files", len(c.SharedFiles) > 0, []string{"profile"}},
		{"token_file", c.TokenFile != "", []string{"web-identity"}},
		{"command", c.Command != "", []string{"process"}},
		{"imds_endpoint", c.IMDSEndpoint != "", []string{"ec2-role"}},
	}
}

func (f *findings) credentials(at string, c *Credentials, region string) {
	known := f.oneOf(child(at, "type"), c.Type,
		"auto", "static", "profile", "ec2-role", "container", "web-identity", "process")
	required := map[string][]string{
		"static":  {"access_key_id", "secret_access_key"},
		"process": {"command"},
	}[c.Type]
	for _, k := range credentialKeys(c) {
		switch {
		case k.set && known && !slices.Contains(k.types, c.Type):
			f.bad(child(at, k.key), "means nothing with credentials of type "+c.Type,
				"remove it, or write type = "+quoted(k.types[0]))
		case !k.set && slices.Contains(required, k.key):
			f.bad(child(at, k.key), "is missing", "credentials of type "+c.Type+" need it")
		}
	}
	f.path(child(at, "token_file"), c.TokenFile)
	for i, p := range c.SharedFiles {
		f.path(item(child(at, "shared_files"), i), p)
	}
	const example = "https://sts.eu-central-1.amazonaws.com"
	if c.STSEndpoint != "" {
		f.web(child(at, "sts_endpoint"), c.STSEndpoint, false, "an address on this machine", example)
	}
	if c.IMDSEndpoint != "" {
		f.web(child(at, "imds_endpoint"), c.IMDSEndpoint, true, "", "http://169.254.169.254")
	}
	for i := range c.AssumeRole {
		f.assumeRole(item(child(at, "assume_role"), i), &c.AssumeRole[i])
	}
	f.chain(at, c, region)
	if c.Type == "web-identity" && c.TokenFile != "" {
		first := item(child(at, "assume_role"), 0)
		switch {
		case len(c.AssumeRole) == 0:
			f.bad(child(at, "token_file"), "there is no role to assume with the token",
				"name it in [[source.credentials.assume_role]], or remove token_file for what EKS sets in the environment")
		case c.AssumeRole[0].ExternalID != "":
			f.bad(child(first, "external_id"), "a role is assumed with a token without an external id", "remove it")
		}
	}
	if c.Type == "profile" && len(c.SharedFiles) == 0 {
		f.warn(child(at, "shared_files"), "the files are those of the home directory that the agent is started with, and a service has another than you",
			`write shared_files = ["/etc/trailpoll/aws"]`)
	}
}

// chain judges what roles have to do with each other, with what they stand on,
// and with the bucket's region.
func (f *findings) chain(at string, c *Credentials, region string) {
	bucket, known := regions.PartitionOf(region)
	partition := func(arn string) string { return strings.SplitN(arn, ":", 3)[1] }
	for i, r := range c.AssumeRole {
		if !rolePattern.MatchString(r.ARN) {
			continue
		}
		at := item(child(at, "assume_role"), i)
		switch p := partition(r.ARN); {
		case known && p != bucket.ID:
			f.bad(child(at, "arn"), "the role is of partition "+p+", and region "+region+" is of "+bucket.ID+": partitions share no credentials",
				"name a role of partition "+bucket.ID+", or check region")
		case i > 0 && rolePattern.MatchString(c.AssumeRole[0].ARN) && p != partition(c.AssumeRole[0].ARN):
			f.bad(child(at, "arn"), "the role is of partition "+p+", and the first of "+partition(c.AssumeRole[0].ARN)+": partitions share no credentials",
				"use roles of one partition")
		}
		// "Role chaining limits your session to a maximum of one hour": IAM User Guide.
		onRole := i > 0 || c.Type == "ec2-role" || c.Type == "container" || c.Type == "web-identity" && c.TokenFile == ""
		if onRole && r.Duration > Duration(time.Hour) && r.Duration <= Duration(12*time.Hour) {
			f.bad(child(at, "duration"), "a session of a role that is assumed by a role lasts an hour at most", `write "1h"`)
		}
	}
}

var (
	rolePattern    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	sessionPattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

// assumeRole follows the limits of STS's AssumeRole.
func (f *findings) assumeRole(at string, r *AssumeRole) {
	if !rolePattern.MatchString(r.ARN) {
		f.bad(child(at, "arn"), quoted(r.ARN)+" is no role", `write one like "arn:aws:iam::111122223333:role/trailpoll-read"`)
	}
	if !sessionPattern.MatchString(r.SessionName) {
		f.bad(child(at, "session_name"), quoted(r.SessionName)+" is no session name", "write 2 to 64 letters, digits and _+=,.@-")
	}
	f.durationBetween(child(at, "duration"), r.Duration, 15*time.Minute, 12*time.Hour)
}
