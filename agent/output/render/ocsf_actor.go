package render

import (
	"strconv"
	"time"
)

// actor writes who called; the class requires it, and of user, session and
// invoked_by at least one. What userIdentity has beyond that goes to unmapped,
// under its name.
func (o *ocsfWriter) actor() {
	o.open("actor")
	from := len(o.dst)
	if o.at[slotIdentity] != nil {
		o.userIdentity(o.at[slotIdentity].value)
	}
	if len(o.dst) == from {
		o.str("invoked_by", "Unknown")
	}
	o.close()
}

// caller is what an actor is made of; each is a JSON string, nil if absent.
type caller struct {
	kind, principal, arn, account, key, name, invokedBy []byte

	issuer, issuerName, created, mfa []byte // of the session
}

func (o *ocsfWriter) userIdentity(raw []byte) {
	var c caller
	var err error
	if o.nested, err = o.members(o.nested[:0], raw); err != nil {
		return // it was read as a value a moment ago
	}
	var rest []byte
	take := func(m *member, to *[]byte) {
		if *to == nil && m.kind() == '"' && len(m.value) > 2 {
			*to = m.value
			return
		}
		rest = appendWhole(rest, m)
	}
	for i := range o.nested {
		switch m := &o.nested[i]; m.plain {
		case "type":
			take(m, &c.kind)
		case "principalId":
			take(m, &c.principal)
		case "arn":
			take(m, &c.arn)
		case "accountId":
			take(m, &c.account)
		case "accessKeyId":
			take(m, &c.key)
		case "userName":
			take(m, &c.name)
		case "invokedBy":
			take(m, &c.invokedBy)
		default:
			if m.plain == "sessionContext" && m.kind() == '{' {
				c.session(o.worker, m.value)
			}
			rest = appendWhole(rest, m)
		}
	}
	o.user(&c)
	o.session(&c)
	if c.invokedBy != nil {
		o.raw("invoked_by", c.invokedBy)
	}
	if len(rest) > 0 {
		o.unmapped([]byte(`"userIdentity":{` + string(rest) + `}`))
	}
}

func appendWhole(dst []byte, m *member) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return append(dst, m.whole...)
}

// session takes what OCSF has a place for out of a sessionContext. All of it
// goes to unmapped as well, since it has more.
func (c *caller) session(w *worker, raw []byte) {
	context, err := w.members(nil, raw)
	if err != nil {
		return
	}
	for i := range context {
		m := &context[i]
		if m.kind() != '{' || m.plain != "sessionIssuer" && m.plain != "attributes" {
			continue
		}
		parts, err := w.members(nil, m.value)
		if err != nil {
			return
		}
		for j := range parts {
			n := &parts[j]
			if n.kind() != '"' || len(n.value) == len(`""`) {
				continue
			}
			switch m.plain + "." + n.plain {
			case "sessionIssuer.arn":
				c.issuer = n.value
			case "sessionIssuer.userName":
				c.issuerName = n.value
			case "attributes.creationDate":
				c.created = n.value
			case "attributes.mfaAuthenticated":
				c.mfa = n.value
			}
		}
	}
}

func (o *ocsfWriter) user(c *caller) {
	if c.name == nil {
		c.name = c.issuerName
	}
	if c.name == nil && c.principal == nil && c.account == nil {
		// A user must have one of these. Its type alone names it well enough.
		if c.name = c.kind; c.name == nil && (c.arn != nil || c.key != nil) {
			c.name = []byte(`"Unknown"`)
		}
	}
	if c.name == nil && c.principal == nil && c.account == nil {
		return
	}
	o.open("user")
	kind := ""
	if c.kind != nil {
		kind = string(o.unquoted(c.kind))
		o.raw("type", c.kind)
	}
	o.number("type_id", int64(userType(kind)))
	for _, p := range [...]struct {
		name  string
		value []byte
	}{{"name", c.name}, {"uid", c.principal}, {"uid_alt", c.arn}, {"credential_uid", c.key}} {
		if p.value != nil {
			o.raw(p.name, p.value)
		}
	}
	if c.account != nil {
		o.open("account")
		o.dst = append(o.dst, `"type":"AWS Account","type_id":10`...)
		o.raw("uid", c.account)
		o.close()
	}
	o.close()
}

// userType returns OCSF's type_id of a userIdentity's type. CloudTrail's types
// say how somebody signed in, and most tell nothing of what they may do.
func userType(kind string) int {
	switch kind {
	case "":
		return 0 // Unknown
	case "IAMUser", "SAMLUser", "WebIdentityUser", "IdentityCenterUser":
		return 1 // User
	case "Root":
		return 2 // Admin
	case "AWSService":
		return 3 // System
	}
	return 99 // Other
}

func (o *ocsfWriter) session(c *caller) {
	created, ok := milliseconds(o.unquotedOr(c.created))
	mfa := string(o.unquotedOr(c.mfa))
	if !ok && c.issuer == nil && mfa != "true" && mfa != "false" {
		return
	}
	o.open("session")
	if ok {
		o.raw("created_time", created)
	}
	if c.issuer != nil {
		o.raw("issuer", c.issuer)
	}
	if mfa == "true" || mfa == "false" {
		o.raw("is_mfa", []byte(mfa))
	}
	o.close()
}

// unquotedOr returns what a JSON string means, nil for none.
func (o *ocsfWriter) unquotedOr(quoted []byte) []byte {
	if quoted == nil {
		return nil
	}
	return o.unquoted(quoted)
}

// resources writes the resources that the call touched, if each is of the one
// shape that CloudTrail's are; else they go to unmapped as they are.
func (o *ocsfWriter) resources() {
	m := o.at[slotResources]
	if m == nil {
		return
	}
	from := len(o.dst)
	o.name("resources")
	o.dst = append(o.dst, '[')
	if !o.resourceList(m.value) {
		o.dst = o.dst[:from]
		o.unmapped(m.whole)
		return
	}
	o.dst = append(o.dst, ']')
}

func (o *ocsfWriter) resourceList(raw []byte) bool {
	items, ok := o.elements(raw)
	if !ok || len(items) == 0 {
		return false
	}
	for i, item := range items {
		if i > 0 {
			o.dst = append(o.dst, ',')
		}
		var err error
		if o.nested, err = o.members(o.nested[:0], item); err != nil {
			return false
		}
		var arn, kind, account []byte
		for i := range o.nested {
			m := &o.nested[i]
			to := map[string]*[]byte{"ARN": &arn, "type": &kind, "accountId": &account}[m.plain]
			if to == nil || *to != nil || m.kind() != '"' {
				return false
			}
			*to = m.value
		}
		o.dst = append(o.dst, '{')
		if arn != nil {
			o.raw("uid", arn)
		}
		if kind != nil {
			o.raw("type", kind)
		}
		if account != nil {
			o.open("owner")
			o.open("account")
			o.dst = append(o.dst, `"type":"AWS Account","type_id":10`...)
			o.raw("uid", account)
			o.close()
			o.close()
		}
		o.close()
	}
	return true
}

// milliseconds returns a time as OCSF has it, if text is one.
func milliseconds(text []byte) ([]byte, bool) {
	t, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return nil, false
	}
	return strconv.AppendInt(nil, t.UnixMilli(), 10), true
}
