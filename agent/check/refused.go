package check

import (
	"encoding/json"
	"strings"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/installer/aws"
)

// right is one of the three that a reader needs.
type right struct{ action, sid string }

// The rights, with the statement of the read policy that grants them.
var (
	toList    = right{"s3:ListBucket", "ListLogs"}
	toGet     = right{"s3:GetObject", "GetLogs"}
	toDecrypt = right{"kms:Decrypt", "DecryptLogs"}
)

// verdicts are what AWS says of why it refuses ("Access denied error message
// examples", IAM User Guide), each with what that means. The first that fits
// counts.
var verdicts = []struct{ says, means string }{
	{"explicit deny in a service control policy", "A service control policy of the organisation denies it: ask whoever manages the organisation."},
	{"explicit deny in a resource control policy", "A resource control policy of the organisation denies it: ask whoever manages the organisation."},
	{"explicit deny in a VPC endpoint policy", "The policy of the VPC endpoint denies it: change that policy."},
	{"explicit deny in a permissions boundary", "The permissions boundary of the identity denies it: change that boundary."},
	{"explicit deny in a session policy", "The session policy that the role was assumed with denies it."},
	{"explicit deny in an identity-based policy", "A Deny statement in the identity's own policies wins over every Allow: remove it."},
	{"explicit deny in a resource-based policy", "A Deny statement in the bucket's or the key's own policy wins over every Allow; mostly it names networks, VPC endpoints or an organisation: except this identity from it."},
	{"no service control policy allows", "No service control policy of the organisation allows it: ask whoever manages the organisation."},
	{"no VPC endpoint policy allows", "The policy of the VPC endpoint does not allow it: add it there."},
	{"no permissions boundary allows", "The permissions boundary of the identity does not allow it: add it there."},
	{"no session policy allows", "The session policy that the role was assumed with does not allow it."},
}

// refused says what to do where AWS refuses a right: what the answer itself
// names, the statement to paste, and what else may stand behind it. For an
// error of another kind it is that error's hint.
func (s *Source) refused(err error, setup *aws.Setup, r right) string {
	if k := fault.KindOf(err); k != fault.Denied && k != fault.KMSDenied {
		return fault.HintOf(err)
	}
	text := err.Error()
	for _, v := range verdicts {
		if strings.Contains(text, v.says) {
			return r.action + " is refused. " + v.means
		}
	}
	if r == toDecrypt {
		return s.undecrypted(err, setup)
	}
	reader := orElse(setup.Reader, "the reader")
	var lines []string
	if strings.Contains(text, "no resource-based policy allows") {
		lines = append(lines, r.action+" is missing in the policy of the bucket: add this statement to it:", indented(bucketStatement(setup, r)))
	} else {
		lines = append(lines, r.action+" is missing: add this statement to the policy of "+reader+":", indented(readStatement(setup, r)),
			"If the bucket is of another account, its bucket policy must allow the same; trailpoll check --print-policy prints it.")
	}
	if r == toGet {
		lines = append(lines, `An object that another account wrote needs that account's consent: set the bucket's object ownership to "Bucket owner enforced".`)
	}
	if s.Owner != "" {
		lines = append(lines, "S3 refuses everybody, too, where the bucket is not of account "+s.Owner+" (bucket_owner).")
	}
	if !s.RequesterPays {
		lines = append(lines, "If its owner lets requesters pay, set requester_pays = true.")
	}
	return strings.Join(lines, "\n")
}

// undecrypted says what to do where a key may not be used.
func (s *Source) undecrypted(err error, setup *aws.Setup) string {
	text := err.Error()
	keyed := *setup
	if len(keyed.KMSKeys) == 0 {
		keyed.KMSKeys = []string{keyIn(text, setup.Partition)}
	}
	for _, code := range []string{"KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException", "KMS.InvalidStateException", "KMS.KeyUnavailableException"} {
		if strings.Contains(text, code) {
			return "The key " + keyed.KMSKeys[0] + " can't be used by anybody: see in KMS whether it is disabled, or is to be deleted, and enable it."
		}
	}
	reader := orElse(setup.Reader, "the reader")
	lines := []string{"s3:GetObject is granted, kms:Decrypt is not."}
	own := []string{"The policy of the key must allow it:", indented(aws.KeyStatement(orElse(setup.Reader, "arn:"+setup.Partition+":iam::ACCOUNT:role/READER")))}
	if strings.Contains(text, "no resource-based policy allows") {
		lines = append(lines, own...)
	} else {
		lines = append(lines, "Add this statement to the policy of "+reader+":", indented(readStatement(&keyed, toDecrypt)))
		lines = append(lines, own...)
	}
	return strings.Join(append(lines, "If the key is of another account, both policies must allow it."), "\n")
}

// readStatement is what the reader's own policy must say.
func readStatement(setup *aws.Setup, r right) aws.Statement {
	for _, st := range setup.ReadPolicy().Statement {
		if st.Sid == r.sid {
			return st
		}
	}
	return aws.Statement{}
}

// bucketStatement is what the bucket's policy must say of the reader.
func bucketStatement(setup *aws.Setup, r right) aws.Statement {
	for _, st := range setup.BucketStatements(orElse(setup.Reader, "arn:"+setup.Partition+":iam::ACCOUNT:role/READER")) {
		if st.Action == r.action {
			return st
		}
	}
	return aws.Statement{}
}

func indented(st aws.Statement) string {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil { // of texts alone
		return ""
	}
	return string(b)
}

// keyIn returns the ARN of the key that an error names, else one to fill in.
func keyIn(text, partition string) string {
	i := strings.Index(text, "arn:"+partition+":kms:")
	if i < 0 {
		return "arn:" + partition + ":kms:REGION:ACCOUNT:key/KEY-ID"
	}
	arn := text[i:]
	if end := strings.IndexAny(arn, " \"',;)"); end >= 0 {
		arn = arn[:end]
	}
	return strings.TrimRight(arn, ".")
}
