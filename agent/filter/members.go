package filter

import (
	"github.com/expr-lang/expr/types"
)

// kind is how a member's value comes to an expression.
type kind byte

const (
	text    kind = 't' // a string; "" if the member is absent or null
	flag    kind = 'f' // true or false; false if absent or null
	maybe   kind = 'm' // the same, nil if absent or null: what == and != see
	dynamic kind = 'd' // anything, decoded; nil if absent
	present kind = 'p' // whether it is there and not null
)

// members are the members that records have by CloudTrail's reference (record
// contents, userIdentity element, Insights and aggregated events), with their
// kinds. What is not here can be reached as record.name.
func members() types.Map {
	m := types.Map{
		"userIdentity": types.Map{"sessionContext": types.Any, "webIdFederationData": types.Any, "onBehalfOf": types.Any, "inScopeOf": types.Any},
		"tlsDetails":   types.Map{"tlsVersion": types.String, "cipherSuite": types.String, "clientProvidedHostHeader": types.String},
	}
	for _, name := range []string{
		"type", "principalId", "arn", "accountId", "accessKeyId", "userName", "invokedBy", "identityProvider", "credentialId", "identityStoreArn",
	} {
		m["userIdentity"].(types.Map)[name] = types.String
	}
	for _, name := range []string{
		"eventVersion", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress", "userAgent", "errorCode", "errorMessage",
		"requestID", "eventID", "eventId", "eventType", "apiVersion", "recipientAccountId", "sharedEventID", "sharedEventId", "vpcEndpointId",
		"vpcEndpointAccountId", "eventCategory", "sessionCredentialFromConsole", "accountId",
	} {
		m[name] = types.String
	}
	for _, name := range []string{"readOnly", "managementEvent"} {
		m[name] = types.Bool
	}
	for _, name := range []string{
		"requestParameters", "responseElements", "additionalEventData", "serviceEventDetails", "resources", "addendum", "eventContext",
		"insightDetails", "edgeDeviceDetails", "timeWindow", "summary", everything,
	} {
		m[name] = types.Any
	}
	return m
}

// everything is the name of the record itself, for members that are not known
// here.
const everything = "record"

// chosen are members that the caller of a call can set to what he likes.
var chosen = []string{"userAgent", "requestParameters", "responseElements", "errorMessage"}

// kindOf returns how the member at path comes to an expression that is not
// asking for it by record.
func kindOf(known types.Map, path []string) kind {
	var t types.Type = known
	for _, name := range path {
		m, ok := t.(types.Map)
		if !ok {
			return dynamic
		}
		if t = m[name]; t == nil {
			return dynamic
		}
	}
	switch t {
	case types.String:
		return text
	case types.Bool:
		return flag
	}
	return dynamic
}

// exprType returns the type that the checker takes a kind for.
func (k kind) exprType() types.Type {
	switch k {
	case text:
		return types.String
	case flag, present:
		return types.Bool
	}
	return types.Any
}
