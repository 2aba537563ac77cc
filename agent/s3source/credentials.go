package s3source

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/regions"
)

// Credentials says who reads the bucket. An explicit type never falls through
// to another.
type Credentials struct {
	Type CredentialsType

	// With Static.
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	// Reload reads the keys again where they came from, when AWS refuses those
	// that are in use. nil = they never change. Called by one goroutine at a
	// time.
	Reload func() (Keys, error)

	// With Profile: its name ("" = default) and the files to look in (none =
	// ~/.aws/config and ~/.aws/credentials, or what AWS_CONFIG_FILE and
	// AWS_SHARED_CREDENTIALS_FILE name). A file may have either format.
	Profile     string
	SharedFiles []string

	// TokenFile, with WebIdentity, holds the token that the first of Roles is
	// assumed with. "" = AWS_WEB_IDENTITY_TOKEN_FILE, with the role that
	// AWS_ROLE_ARN names, as EKS sets them.
	TokenFile string

	// Command, with Process, prints credentials in the format of the shared
	// files' credential_process. It is given to sh -c or cmd.exe /C, without
	// standard input, and has CommandTimeout (default 1 min). It must end by
	// itself; what it writes to standard error is not kept.
	Command        string
	CommandTimeout time.Duration

	// IMDSEndpoint, with EC2Role, is where instance metadata is; "" = EC2's own
	// address.
	IMDSEndpoint string
	// STSEndpoint is the URL of STS; "" = AWS's, in the bucket's region if that
	// is configured, else in the main region of the roles' partition.
	STSEndpoint string
	// Roles are assumed on top of all that, each with the credentials of the
	// one before.
	Roles []Role
}

// Keys are an access key. What prints them shows nothing of it.
type Keys struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// String returns "access key".
func (k Keys) String() string { return "access key" }

// GoString returns the same.
func (k Keys) GoString() string { return k.String() }

// Role is a role to assume.
type Role struct {
	ARN string
	// ExternalID is what the role's trust policy may ask for; "" = none.
	ExternalID string
	// SessionName stands in the records that CloudTrail makes of the session's
	// calls; "" = trailpoll.
	SessionName string
	// Duration is how long a session lasts before it is exchanged, from 15 min;
	// 0 = 1 h. STS allows what the role's MaxSessionDuration says, and 1 h at
	// most for a role that is assumed by a role.
	Duration time.Duration
}

// CredentialsType is where credentials come from.
type CredentialsType string

// The types of credentials.
const (
	// AutoCredentials is the SDK's default chain: environment, shared files,
	// web identity, container, instance. It is the default.
	AutoCredentials CredentialsType = "auto"
	// Static is an access key in the config.
	Static CredentialsType = "static"
	// Profile is a profile of the AWS command line's files.
	Profile CredentialsType = "profile"
	// EC2Role is the role of the EC2 instance, by IMDSv2 alone.
	EC2Role CredentialsType = "ec2-role"
	// Container is the role of an ECS task or an EKS pod (EKS Pod Identity).
	Container CredentialsType = "container"
	// WebIdentity is a role that is assumed with an OIDC token.
	WebIdentity CredentialsType = "web-identity"
	// Process is a program that prints credentials, such as IAM Roles
	// Anywhere's aws_signing_helper.
	Process CredentialsType = "process"
)

// String names the type and nothing secret.
func (c Credentials) String() string { return "credentials of type " + string(c.Type) }

// GoString is String, so that %#v shows nothing secret either.
func (c Credentials) GoString() string { return c.String() }

const (
	defaultSession  = "trailpoll"
	defaultDuration = time.Hour
	// chained is the longest session of a role that is assumed by a role
	// ("Methods to assume a role", IAM User Guide).
	chained = time.Hour
)

// normalize fills in defaults, and returns what can't work, with what to do.
func (c *Credentials) normalize() (hint string, err error) {
	switch c.Type {
	case AutoCredentials, Profile, EC2Role, Container:
	case Static:
		if c.AccessKeyID == "" || c.SecretAccessKey == "" {
			return "set access_key_id and secret_access_key", errors.New("static credentials lack a key")
		}
	case WebIdentity:
		if c.TokenFile != "" && len(c.Roles) == 0 {
			return "name the role in [[source.credentials.assume_role]]", errors.New("a web identity's token has no role to assume")
		}
		if c.TokenFile != "" && c.Roles[0].ExternalID != "" {
			return "remove external_id", errors.New("a role is assumed with a token without an external id")
		}
	case Process:
		if c.Command == "" {
			return "set command", errors.New("credentials of type process lack a command")
		}
	default:
		return "use auto, static, profile, ec2-role, container, web-identity or process",
			fmt.Errorf("there are no credentials of type %q", c.Type)
	}
	if c.CommandTimeout <= 0 {
		c.CommandTimeout = time.Minute
	}

	roles := make([]Role, len(c.Roles))
	for i, r := range c.Roles {
		partition := arnPartition(r.ARN)
		if partition == "" {
			return "write one like arn:aws:iam::111122223333:role/trailpoll-read", fmt.Errorf("%q is not the ARN of a role", r.ARN)
		}
		if i > 0 && partition != arnPartition(c.Roles[0].ARN) {
			return "use roles of one partition", fmt.Errorf("no role of partition %s can be assumed from partition %s", partition, arnPartition(c.Roles[0].ARN))
		}
		if r.SessionName == "" {
			r.SessionName = defaultSession
		}
		if r.Duration <= 0 {
			r.Duration = defaultDuration
		}
		if r.Duration > chained && (i > 0 || c.Type == EC2Role || c.Type == Container || c.Type == WebIdentity && c.TokenFile == "") {
			return "set duration to 1h or less", fmt.Errorf("the session of %s would last %s, and of a role that is assumed by a role it lasts an hour at most", r.ARN, r.Duration)
		}
		roles[i] = r
	}
	c.Roles = roles
	return "", nil
}

// arnPartition returns the partition of a role's ARN, "" if it is none.
func arnPartition(arn string) string {
	part := strings.SplitN(arn, ":", 6)
	if len(part) != 6 || part[0] != "arn" || part[2] != "iam" || !strings.HasPrefix(part[5], "role/") {
		return ""
	}
	return part[1]
}

// mainRegion is the region that answers for the roles' partition, "" if that is
// not known.
func (c *Credentials) mainRegion() string {
	if len(c.Roles) == 0 {
		return ""
	}
	p, _ := regions.ByID(arnPartition(c.Roles[0].ARN))
	return p.Main
}
