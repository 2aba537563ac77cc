package s3source

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/smithy-go"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// isAboutKeys reports whether a code of STS or S3 says that a request was
// signed with keys that are not valid any more.
func isAboutKeys(code string) bool {
	switch code {
	case "InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken":
		return true
	}
	return false
}

// lackingText says what went wrong on the way to credentials, without what may
// hold secrets.
func lackingText(err *credentialsError) string {
	doing := err.step.doing() + ": "
	if e, ok := errors.AsType[*processcreds.ProviderError](err); ok {
		if strings.Contains(e.Error(), "process output") {
			return doing + "the output of credential_process is not what it should be" // it may hold secrets
		}
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return doing + e.Err.Error()
	}
	if a, answered := answerOf(err); answered && a.code != "" && isService(err) {
		return doing + a.text(err)
	}
	if status := metadataStatus(err); status != 0 {
		return doing + "the instance's metadata answer HTTP " + strconv.Itoa(status)
	}
	if _, ok := errors.AsType[*smithy.OperationError](err); ok {
		return doing + rootOf(err).Error()
	}
	return doing + err.err.Error()
}

// metadataStatus returns what the instance's metadata answered, 0 if nothing.
func metadataStatus(err error) int {
	if e, ok := errors.AsType[*smithy.OperationError](err); !ok || e.Service() != "ec2imds" {
		return 0
	}
	if a, answered := answerOf(err); answered {
		return a.status
	}
	// Of a refused token the SDK keeps the text alone.
	if m := statusCode.FindStringSubmatch(err.Error()); m != nil {
		status, _ := strconv.Atoi(m[1])
		return status
	}
	return 0
}

var statusCode = regexp.MustCompile(`StatusCode: ([1-9][0-9]{2})\b`)

// isService reports whether it is a service of AWS that says so, not the
// instance's metadata.
func isService(err error) bool {
	e, ok := errors.AsType[*smithy.OperationError](err)
	return ok && e.Service() != "ec2imds"
}

// lacking says what it means that there are no credentials: mostly that the
// config is wrong, but what STS or SSO answers may pass by itself.
func (s *Source) lacking(err *credentialsError) verdict {
	a, answered := answerOf(err)
	if isService(err) {
		switch {
		case !answered:
			if v := s.unanswered(err); v.kind == fault.Unreachable {
				if v.hint == reachS3 {
					v.hint = "check the firewall and the route to STS, sts_endpoint, and whether a proxy is needed"
				}
				return v
			}
		case a.status == http.StatusTooManyRequests || strings.Contains(a.code, "Throttl"):
			return verdict{kind: fault.Throttled}
		case a.status >= 500:
			return verdict{kind: fault.Temporary}
		}
	}
	if errors.Is(err, errExpired) {
		return verdict{fault.BadCredentials, "set this machine's clock, or look why no new credentials are given"}
	}
	if answered && isService(err) {
		if hint := s.stsHint(err.step, &a); hint != "" {
			return verdict{fault.BadCredentials, hint}
		}
	}
	if err.step.role != nil && !err.step.token {
		return verdict{fault.BadCredentials, "check [[source.credentials.assume_role]]"}
	}
	return verdict{fault.BadCredentials, s.typeHint(err)}
}

// stsHint says what to do about an error code of STS ("Errors" of AssumeRole
// and AssumeRoleWithWebIdentity, STS API Reference); "" if it means nothing by
// itself.
func (s *Source) stsHint(at *step, a *answer) string {
	switch a.code {
	case "AccessDenied", "AccessDeniedException":
		switch {
		case at.role == nil && !at.token:
			return ""
		case at.token:
			return "the role's trust policy must allow sts:AssumeRoleWithWebIdentity for this provider, and the token's sub and aud"
		}
		external := "external_id is none: set it if the trust policy asks for one"
		if at.role.ExternalID != "" {
			external = "external_id must be the one that the trust policy asks for"
		}
		return "grant sts:AssumeRole on " + at.role.ARN + " to the identity that is named here, and name that identity" +
			" in the role's trust policy; " + external
	case "InvalidClientTokenId", "UnrecognizedClientException":
		return "STS does not know the access key: it was deleted, or belongs to another AWS partition"
	case "SignatureDoesNotMatch", "RequestExpired", "IncompleteSignature", "InvalidSignatureException":
		// "Signature expired: 20261120T200000Z is now earlier than …"
		if a.code == "RequestExpired" || strings.Contains(a.message, "ignature expired") || strings.Contains(a.message, "not yet current") {
			return "set this machine's clock: AWS takes no request that is 15 minutes off"
		}
		return "the secret access key is not that of the access key, or a proxy on the way rewrites requests"
	case "ExpiredToken", "ExpiredTokenException":
		if at.token {
			return "the token has expired: look why nobody writes a new one into the token file"
		}
		return "the session token has expired: give the agent new credentials"
	case "InvalidIdentityToken", "IDPRejectedClaim", "IDPCommunicationError":
		return "check the token file, and the identity provider in IAM: its URL, audience and thumbprint"
	case "RegionDisabledException":
		return "STS is switched off in " + s.cfg.home + ": switch it on in IAM's account settings, or set sts_endpoint"
	case "ValidationError":
		if strings.Contains(a.message, "DurationSeconds") || strings.Contains(a.message, "MaxSessionDuration") {
			return "set duration to what the role allows, 1h or less for a role that is assumed by a role"
		}
		return "check [[source.credentials.assume_role]]"
	}
	return ""
}

// typeHint says where to look for credentials of the configured type.
func (s *Source) typeHint(err error) string {
	switch s.cfg.Credentials.Type {
	case Static:
		return "check access_key_id and secret_access_key of [source.credentials], and the files they are read from"
	case Profile:
		return "check profile and shared_files of [source.credentials], as the account that the agent runs as"
	case EC2Role:
		switch status := metadataStatus(err); {
		case status == http.StatusNotFound && strings.Contains(err.Error(), "getToken"):
			return "the instance's metadata must offer version 2 (IMDSv2)"
		case status == http.StatusNotFound:
			return "attach an IAM role to the instance"
		case status == http.StatusForbidden, status == http.StatusUnauthorized:
			return "the instance refuses its metadata: look for its metadata options and for what stands between"
		}
		return "is this an EC2 instance, and are its metadata switched on? In a container their hop limit must be 2 or more"
	case Container:
		return "is this an ECS task or an EKS pod with a role? Other ways in are set by type in [source.credentials]"
	case WebIdentity:
		return "check token_file of [source.credentials], as the account that the agent runs as"
	case Process:
		return "run the command of [source.credentials] by hand, as the account that the agent runs as:" +
			` it must print {"Version": 1, "AccessKeyId": …, "SecretAccessKey": …} and end within a minute`
	}
	return "no credentials were found in the environment, shared files," +
		" container or instance: set [source.credentials]"
}
