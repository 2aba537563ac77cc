// Package aws holds the least that AWS must grant for trailpoll to read a
// bucket: policies that are filled in for a bucket (Render), and the same as
// templates of CloudFormation and Terraform (Templates). It is pure: no input,
// no output. A test holds the three to each other, for every partition.
package aws

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/trailpoll/trailpoll/regions"
)

// Templates are the templates that ship, below cloudformation/ and terraform/.
//
//go:embed cloudformation/*.yaml terraform/*.tf
var Templates embed.FS

// Setup says for what a policy is filled in.
type Setup struct {
	// Partition is the bucket's: aws, aws-us-gov, aws-cn …; "" = aws.
	Partition string
	Bucket    string
	// Prefix is the trail's S3 key prefix, without AWSLogs/; "" = none.
	Prefix string
	// KMSKeys are the ARNs of the keys that the objects are encrypted with;
	// none = they are not, or with a key of S3's own.
	KMSKeys []string
	// Reader is the ARN of the user or role whose credentials are configured;
	// "" = a placeholder.
	Reader string
	// Roles are the ARNs of the roles that are assumed on top, in order.
	Roles []string
	// ExternalID is what the last role asks for; "" = nothing.
	ExternalID string
}

// Document is one policy, and where it belongs.
type Document struct {
	Name  string // identity, assume, trust, bucket or key
	Title string // where it belongs, in words
	JSON  string // to paste, indented
}

// Policy is a policy as IAM reads it.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is one statement of a policy.
type Statement struct {
	Sid       string
	Effect    string
	Principal map[string]string `json:",omitempty"`
	Action    string
	Resource  []string                     `json:",omitempty"`
	Condition map[string]map[string]string `json:",omitempty"`
}

const (
	version = "2012-10-17"
	// placeholder is what stands for a reader that nobody named.
	placeholder = "111122223333:user/trailpoll"
)

// Render returns the policies for a set-up: that of the identity that reads,
// then, where roles are assumed, what lets them be; then what the bucket's and
// the key's own policies must say if they are another account's.
func Render(s Setup) ([]Document, error) {
	if s.Partition == "" {
		s.Partition = "aws"
	}
	if _, ok := regions.ByID(s.Partition); !ok {
		return nil, fmt.Errorf("rendering policies: there is no partition %q", s.Partition)
	}
	if s.Bucket == "" {
		return nil, errors.New("rendering policies: no bucket is named")
	}
	if s.Reader == "" {
		s.Reader = "arn:" + s.Partition + ":iam::" + placeholder
	}
	reader := s.Reader
	if n := len(s.Roles); n > 0 {
		reader = s.Roles[n-1]
	}

	docs := []Document{{"identity", "policy of the identity that reads, " + reader, indent(s.ReadPolicy())}}
	if len(s.Roles) > 0 {
		for i, role := range s.Roles {
			caller := s.Reader
			if i > 0 {
				caller = s.Roles[i-1]
			}
			external := ""
			if i == len(s.Roles)-1 {
				external = s.ExternalID
			}
			docs = append(docs,
				Document{"assume", "policy of the identity that assumes the role, " + caller, indent(assumePolicy(role))},
				Document{"trust", "trust policy of the role, " + role, indent(TrustPolicy(caller, external))})
		}
	}
	docs = append(docs, Document{
		"bucket", "statements to add to the policy of the bucket, if the bucket is of another account than " + reader,
		indent(s.BucketStatements(reader)),
	})
	if len(s.KMSKeys) > 0 {
		docs = append(docs, Document{
			"key", "statement to add to the policy of the key, " + strings.Join(s.KMSKeys, ", "), indent(KeyStatement(reader)),
		})
	}
	return docs, nil
}

func indent(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil { // of texts alone
		return ""
	}
	return b.String()
}

func (s *Setup) bucketARN() string { return "arn:" + s.Partition + ":s3:::" + s.Bucket }

// logsARN matches the objects below AWSLogs/. What is special to IAM in a
// prefix is written so that it isn't ("Policy variables", IAM User Guide).
func (s *Setup) logsARN() string {
	prefix := strings.NewReplacer("$", "${$}", "*", "${*}", "?", "${?}").Replace(s.Prefix)
	if prefix != "" {
		prefix += "/"
	}
	return s.bucketARN() + "/" + prefix + "AWSLogs/*"
}

// ReadPolicy lets an identity read the logs: list the bucket, get what is below
// AWSLogs/, and use its keys for that alone.
//
// ListBucket has no condition on the prefix: without it S3 answers "access
// denied" for an object that is gone, and for the bucket itself.
func (s *Setup) ReadPolicy() Policy {
	p := Policy{version, []Statement{
		{Sid: "ListLogs", Effect: "Allow", Action: "s3:ListBucket", Resource: []string{s.bucketARN()}},
		{Sid: "GetLogs", Effect: "Allow", Action: "s3:GetObject", Resource: []string{s.logsARN()}},
	}}
	if len(s.KMSKeys) > 0 {
		p.Statement = append(p.Statement, Statement{
			Sid: "DecryptLogs", Effect: "Allow", Action: "kms:Decrypt", Resource: s.KMSKeys, Condition: viaS3(),
		})
	}
	return p
}

// viaS3 is true of calls that S3 makes for its caller.
func viaS3() map[string]map[string]string {
	return map[string]map[string]string{"StringLike": {"kms:ViaService": "s3.*"}}
}

func assumePolicy(role string) Policy {
	return Policy{version, []Statement{{Sid: "AssumeReader", Effect: "Allow", Action: "sts:AssumeRole", Resource: []string{role}}}}
}

// TrustPolicy lets a caller assume the role that it belongs to, if it knows the
// external id; "" = without one.
func TrustPolicy(caller, externalID string) Policy {
	s := Statement{Sid: "Trailpoll", Effect: "Allow", Principal: map[string]string{"AWS": caller}, Action: "sts:AssumeRole"}
	if externalID != "" {
		s.Condition = map[string]map[string]string{"StringEquals": {"sts:ExternalId": externalID}}
	}
	return Policy{version, []Statement{s}}
}

// BucketStatements are what the bucket's policy must say of a reader of another
// account.
func (s *Setup) BucketStatements(reader string) []Statement {
	who := map[string]string{"AWS": reader}
	return []Statement{
		{Sid: "TrailpollList", Effect: "Allow", Principal: who, Action: "s3:ListBucket", Resource: []string{s.bucketARN()}},
		{Sid: "TrailpollGet", Effect: "Allow", Principal: who, Action: "s3:GetObject", Resource: []string{s.logsARN()}},
	}
}

// KeyStatement is what a key's policy must say of a reader. In a key's policy
// the resource * is the key.
func KeyStatement(reader string) Statement {
	return Statement{
		Sid: "TrailpollDecrypt", Effect: "Allow", Principal: map[string]string{"AWS": reader},
		Action: "kms:Decrypt", Resource: []string{"*"}, Condition: viaS3(),
	}
}
