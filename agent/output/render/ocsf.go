package render

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/trailpoll/trailpoll/agent/record"
)

// OCSFVersion is the version of the Open Cybersecurity Schema Framework that
// OCSF is of: the one in which Amazon Security Lake has CloudTrail's events.
const OCSFVersion = "1.1.0"

// slot is a place that OCSF has for a member of the record.
type slot int

const (
	slotNone slot = iota
	slotVersion
	slotIdentity
	slotEventName
	slotEventSource
	slotEventType
	slotCategory
	slotRegion
	slotAddress
	slotAgent
	slotErrorCode
	slotErrorMessage
	slotRequest
	slotResponse
	slotRequestID
	slotAPIVersion
	slotAccount
	slotSharedID
	slotEndpoint
	slotTime
	slotEventID
	slotResources
	slotReadOnly
	slots
)

// ocsfSlots says which member goes where, and of which kind its value must be:
// '"' a string, '*' anything but null, 'b' true or false. A member of another
// kind, or one that comes a second time, goes to unmapped.
var ocsfSlots = map[string]struct {
	slot slot
	kind byte
}{
	"eventVersion": {slotVersion, '"'}, "userIdentity": {slotIdentity, '{'}, "eventTime": {slotTime, '"'},
	"eventSource": {slotEventSource, '"'}, "eventName": {slotEventName, '"'}, "awsRegion": {slotRegion, '"'},
	"sourceIPAddress": {slotAddress, '"'}, "userAgent": {slotAgent, '"'}, "errorCode": {slotErrorCode, '"'},
	"errorMessage": {slotErrorMessage, '"'}, "requestParameters": {slotRequest, '*'},
	"responseElements": {slotResponse, '*'}, "requestID": {slotRequestID, '"'}, "eventID": {slotEventID, '"'},
	"eventId": {slotEventID, '"'}, "eventType": {slotEventType, '"'}, "apiVersion": {slotAPIVersion, '"'},
	"recipientAccountId": {slotAccount, '"'}, "sharedEventID": {slotSharedID, '"'},
	"vpcEndpointId": {slotEndpoint, '"'}, "eventCategory": {slotCategory, '"'}, "resources": {slotResources, '['},
	"readOnly": {slotReadOnly, 'b'},
}

// ocsfWriter writes one event.
type ocsfWriter struct {
	*worker
	rec  *record.Record
	dst  []byte
	at   [slots]*member
	rest []byte // members of unmapped
}

// ocsf appends raw, the bytes of rec, as an event of class API Activity.
func (w *worker) ocsf(dst []byte, rec *record.Record, raw []byte) ([]byte, error) {
	var err error
	if w.top, err = w.members(w.top[:0], raw); err != nil {
		return dst, err
	}
	o := ocsfWriter{worker: w, rec: rec, dst: dst, rest: w.buf[:0]}
	o.sort()
	o.class()
	o.metadata()
	o.cloud()
	o.api()
	o.actor()
	o.endpoint()
	o.resources()
	o.origin()
	if len(o.rest) > 0 {
		o.dst = append(o.dst, `,"unmapped":{`...)
		o.dst = append(o.dst, o.rest...)
		o.dst = append(o.dst, '}')
	}
	w.buf = o.rest
	return append(o.dst, '}'), nil
}

// sort puts each member into its slot, or into unmapped.
func (o *ocsfWriter) sort() {
	for i := range o.top {
		m := &o.top[i]
		s, ok := ocsfSlots[m.plain]
		if ok && m.kind() == 'n' {
			continue // OCSF says that something is not there by not naming it
		}
		if ok && o.at[s.slot] == nil && fits(m, s.kind) && o.identity(m, s.slot) {
			o.at[s.slot] = m
			if s.slot != slotReadOnly { // of which activity_id says only a part
				continue
			}
		}
		o.unmapped(m.whole)
	}
	// An object request has a uid, so without one there is no place for data.
	if o.at[slotRequestID] == nil && o.at[slotRequest] != nil {
		o.unmapped(o.at[slotRequest].whole)
		o.at[slotRequest] = nil
	}
}

func fits(m *member, kind byte) bool {
	switch k := byte(m.kind()); kind {
	case '*':
		return k != 'n'
	case 'b':
		return k == 't' || k == 'f'
	default:
		return k == kind
	}
}

// identity reports whether a member that would go to metadata.uid or time is
// what the record is known by.
func (o *ocsfWriter) identity(m *member, s slot) bool {
	switch s {
	case slotEventID:
		return string(inner(m.value)) == string(o.rec.EventID)
	case slotTime:
		return string(inner(m.value)) == string(o.rec.EventTime)
	}
	return true
}

func (o *ocsfWriter) unmapped(whole []byte) {
	if len(o.rest) > 0 {
		o.rest = append(o.rest, ',')
	}
	o.rest = append(o.rest, whole...)
}

// text returns what the string in a slot means, "" if there is none.
func (o *ocsfWriter) text(s slot) string {
	if o.at[s] == nil || o.at[s].kind() != '"' {
		return ""
	}
	return string(o.unquoted(o.at[s].value))
}

// name begins a member of the object that is open.
func (o *ocsfWriter) name(name string) {
	if last := o.dst[len(o.dst)-1]; last != '{' && last != '[' {
		o.dst = append(o.dst, ',')
	}
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, name...)
	o.dst = append(o.dst, `":`...)
}

// raw writes a member whose value is JSON already.
func (o *ocsfWriter) raw(name string, value []byte) {
	o.name(name)
	o.dst = append(o.dst, value...)
}

// slot writes a member with the value in a slot, and reports whether there is
// one.
func (o *ocsfWriter) slot(name string, s slot) bool {
	if o.at[s] == nil {
		return false
	}
	o.raw(name, o.at[s].value)
	return true
}

// str writes a member with a text, nothing if that is empty.
func (o *ocsfWriter) str(name, text string) {
	if text != "" {
		o.name(name)
		o.dst = appendQuoted(o.dst, text)
	}
}

func (o *ocsfWriter) number(name string, n int64) {
	o.name(name)
	o.dst = strconv.AppendInt(o.dst, n, 10)
}

func (o *ocsfWriter) open(name string) {
	o.name(name)
	o.dst = append(o.dst, '{')
}

func (o *ocsfWriter) close() { o.dst = append(o.dst, '}') }

// activities are the words that names of calls begin with. What is not here is
// Read if CloudTrail calls it read-only, else Other.
var activities = map[string]int{
	"Create": 1, "Run": 1, "Allocate": 1, "Import": 1, "Generate": 1, "Register": 1, "Copy": 1, "Issue": 1,
	"Get": 2, "List": 2, "Describe": 2, "Head": 2, "Lookup": 2, "Search": 2, "Query": 2, "Scan": 2, "Select": 2,
	"Read": 2, "View": 2, "Download": 2, "Export": 2, "Poll": 2,
	"Update": 3, "Modify": 3, "Put": 3, "Set": 3, "Change": 3, "Attach": 3, "Detach": 3, "Associate": 3,
	"Disassociate": 3, "Enable": 3, "Disable": 3, "Tag": 3, "Untag": 3, "Add": 3, "Remove": 3, "Reset": 3,
	"Replace": 3, "Rotate": 3, "Restore": 3, "Authorize": 3, "Revoke": 3, "Start": 3, "Stop": 3, "Reboot": 3,
	"Delete": 4, "Terminate": 4, "Deregister": 4, "Release": 4, "Purge": 4, "Destroy": 4,
}

var activityNames = [...]string{"Unknown", "Create", "Read", "Update", "Delete"}

// activity returns the activity_id and its name.
func (o *ocsfWriter) activity() (int, string) {
	name := o.text(slotEventName)
	if name == "" {
		return 0, activityNames[0]
	}
	id, ok := activities[firstWord(strings.TrimPrefix(name, "Batch"))]
	if !ok && o.at[slotReadOnly] != nil && o.at[slotReadOnly].kind() == 't' {
		id, ok = 2, true
	}
	if !ok {
		return 99, name // of Other, the name is the source's own
	}
	return id, activityNames[id]
}

// firstWord returns the first word of a name in CamelCase.
func firstWord(s string) string {
	for i, r := range s {
		if i > 0 && !unicode.IsLower(r) {
			return s[:i]
		}
	}
	return s
}

// class writes what each event of the class has.
func (o *ocsfWriter) class() {
	id, name := o.activity()
	caption := "Other"
	if id < len(activityNames) {
		caption = activityNames[id]
	}
	o.dst = append(o.dst, `{"class_uid":6003,"class_name":"API Activity","category_uid":6,"category_name":"Application Activity"`...)
	o.number("activity_id", int64(id))
	o.str("activity_name", name)
	o.number("type_uid", int64(600300+id))
	o.str("type_name", "API Activity: "+caption)
	o.number("time", o.rec.Time().UnixMilli())
	o.dst = append(o.dst, `,"timezone_offset":0,"severity_id":1,"severity":"Informational"`...)
	switch {
	case o.text(slotErrorCode) != "":
		o.dst = append(o.dst, `,"status_id":2,"status":"Failure"`...)
	case o.at[slotEventName] != nil:
		o.dst = append(o.dst, `,"status_id":1,"status":"Success"`...)
	default: // Insight and aggregated events are no calls
		o.dst = append(o.dst, `,"status_id":0,"status":"Unknown"`...)
	}
	o.slot("status_code", slotErrorCode)
	o.slot("status_detail", slotErrorMessage)
}

func (o *ocsfWriter) metadata() {
	o.open("metadata")
	o.dst = append(o.dst, `"version":"`+OCSFVersion+`","profiles":["cloud"]`...)
	o.open("product")
	o.dst = append(o.dst, `"name":"CloudTrail","vendor_name":"AWS"`...)
	o.slot("version", slotVersion)
	if o.at[slotCategory] != nil {
		o.open("feature")
		o.slot("name", slotCategory)
		o.close()
	}
	o.close()
	o.name("uid")
	o.dst = appendIdentity(o.dst, o.rec)
	o.slot("event_code", slotEventType)
	o.slot("original_time", slotTime)
	o.slot("correlation_uid", slotSharedID)
	o.str("log_name", o.rec.Object.LogType)
	o.str("log_provider", "AWS CloudTrail")
	o.close()
}

func (o *ocsfWriter) cloud() {
	o.open("cloud")
	o.str("provider", "AWS")
	if !o.slot("region", slotRegion) {
		o.str("region", o.rec.Object.Region)
	}
	o.open("account")
	o.dst = append(o.dst, `"type":"AWS Account","type_id":10`...)
	if !o.slot("uid", slotAccount) {
		o.str("uid", o.rec.Object.Account)
	}
	o.str("name", o.rec.Object.AccountName)
	o.close()
	if org := o.rec.Object.Organization; org != "" {
		o.open("org")
		o.str("uid", org)
		o.close()
	}
	o.close()
}

func (o *ocsfWriter) api() {
	o.open("api")
	if !o.slot("operation", slotEventName) {
		o.str("operation", "Unknown")
	}
	o.slot("version", slotAPIVersion)
	if o.at[slotEventSource] != nil {
		o.open("service")
		o.slot("name", slotEventSource)
		o.close()
	}
	if o.at[slotRequestID] != nil {
		o.open("request")
		o.slot("uid", slotRequestID)
		o.slot("data", slotRequest)
		o.close()
	}
	if o.at[slotResponse] != nil || o.at[slotErrorCode] != nil || o.at[slotErrorMessage] != nil {
		o.open("response")
		o.slot("error", slotErrorCode)
		o.slot("error_message", slotErrorMessage)
		o.slot("data", slotResponse)
		o.close()
	}
	o.close()
}

// endpoint writes where the call came from; the class requires it.
func (o *ocsfWriter) endpoint() {
	o.open("src_endpoint")
	name := "svc_name"
	if ip, err := netip.ParseAddr(o.text(slotAddress)); err == nil && ip.Zone() == "" {
		name = "ip"
	}
	address, endpoint := o.slot(name, slotAddress), o.slot("uid", slotEndpoint)
	if !address && !endpoint {
		o.str("name", "Unknown")
	}
	o.close()
	if o.at[slotAgent] != nil {
		o.open("http_request")
		o.slot("user_agent", slotAgent)
		o.close()
	}
}

// origin writes the object that the record stands in.
func (o *ocsfWriter) origin() {
	object := o.rec.Object
	o.dst = append(o.dst, `,"enrichments":[{"name":"metadata.uid"`...)
	o.name("value")
	o.dst = appendIdentity(o.dst, o.rec)
	o.str("type", "s3_object")
	o.str("provider", "trailpoll")
	o.open("data")
	o.str("source", object.Source)
	o.str("bucket", object.Bucket)
	o.str("key", object.Key)
	o.number("index", int64(o.rec.Index))
	if len(object.Labels) > 0 {
		o.name("labels")
		o.dst = appendLabels(o.dst, object.Labels)
	}
	o.dst = append(o.dst, "}}]"...)
}
