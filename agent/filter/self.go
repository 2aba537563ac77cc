package filter

import (
	"bytes"
	"slices"
	"strings"

	"github.com/trailpoll/trailpoll/agent/record"
)

// Self says which calls are the agent's own.
type Self struct {
	// Product is what the agent's calls have in their user agent, as
	// app/<Product>. Anybody can write that there, so it is only believed of
	// calls that the agent makes, and of S3 only for the source's own bucket.
	Product string
	// AccessKeyID and RoleARN, as far as the configuration tells them, are who
	// calls: with one of them, nobody else's calls are taken for the agent's,
	// and of KMS those that S3 makes for it can be told. "" = not known.
	AccessKeyID string
	RoleARN     string
}

// self is a compiled Self.
type self struct {
	Self
	source, call, agent, failure *node
	bucket, context, key, role   *node
}

// calls are the calls that the agent makes, as CloudTrail names them:
// ListObjectsV2 is recorded as ListObjects.
var calls = map[string][]string{
	"s3.amazonaws.com":  {"ListObjects", "GetObject", "HeadObject", "HeadBucket", "GetBucketLocation"},
	"kms.amazonaws.com": {"Decrypt"},
	"sts.amazonaws.com": {"GetCallerIdentity", "AssumeRole", "AssumeRoleWithWebIdentity"},
}

func newSelf(s Self, l *lookup) *self {
	return &self{
		Self:   s,
		source: l.want([]string{"eventSource"}), call: l.want([]string{"eventName"}),
		agent: l.want([]string{"userAgent"}), failure: l.want([]string{"errorCode"}),
		bucket:  l.want([]string{"requestParameters", "bucketName"}),
		context: l.want([]string{"requestParameters", "encryptionContext", "aws:s3:arn"}),
		key:     l.want([]string{"userIdentity", "accessKeyId"}),
		role:    l.want([]string{"userIdentity", "sessionContext", "sessionIssuer", "arn"}),
	}
}

// is reports whether the record tells of a call of the agent's own that was
// granted. Refused ones are kept: somebody has to see them.
func (w *self) is(s *scratch, r *record.Record) bool {
	get := func(n *node) string {
		v, _ := s.str(s.at(n)).(string)
		return v
	}
	source := get(w.source)
	if !slices.Contains(calls[source], get(w.call)) || get(w.failure) != "" {
		return false
	}
	known := w.AccessKeyID != "" || w.RoleARN != ""
	if known && (w.AccessKeyID == "" || get(w.key) != w.AccessKeyID) && (w.RoleARN == "" || get(w.role) != w.RoleARN) {
		return false
	}
	switch source {
	case "s3.amazonaws.com":
		return get(w.bucket) == r.Object.Bucket && product(s.at(w.agent), w.Product)
	case "kms.amazonaws.com":
		// S3 asks KMS in the agent's name, with a user agent of its own; what
		// it decrypts stands in the context (Amazon S3, "Using AWS KMS
		// encryption": encryption context).
		_, name, _ := strings.Cut(get(w.context), ":::")
		bucket, _, _ := strings.Cut(name, "/")
		return known && bucket == r.Object.Bucket
	}
	return product(s.at(w.agent), w.Product)
}

// product reports whether a user agent, as written, has the token app/name.
func product(agent []byte, name string) bool {
	token := []byte("app/" + name)
	for {
		i := bytes.Index(agent, token)
		if i < 0 {
			return false
		}
		end := i + len(token)
		if i > 0 && strings.IndexByte(" [\"", agent[i-1]) >= 0 && end < len(agent) && strings.IndexByte(" ]\"", agent[end]) >= 0 {
			return true
		}
		agent = agent[end:]
	}
}
