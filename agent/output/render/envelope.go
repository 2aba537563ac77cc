package render

import (
	"maps"
	"slices"
	"strconv"

	"github.com/trailpoll/trailpoll/agent/record"
)

// place is what an envelope says of an object: the members before and after
// the index.
type place struct {
	object        *record.Object
	before, after []byte
}

// envelope appends raw within an object that says where it came from. What an
// object does not have (organisation, account name, labels) is left out.
func (r *Renderer) envelope(dst []byte, rec *record.Record, raw []byte) []byte {
	p := r.place.Load()
	if p == nil || p.object != rec.Object {
		p = newPlace(rec.Object)
		r.place.Store(p)
	}
	dst = append(dst, `{"id":`...)
	dst = appendIdentity(dst, rec)
	dst = append(dst, p.before...)
	dst = strconv.AppendInt(dst, int64(rec.Index), 10)
	dst = append(dst, p.after...)
	dst = append(dst, raw...)
	return append(dst, '}')
}

func newPlace(o *record.Object) *place {
	p := &place{object: o}
	b := appendMember(nil, "source", o.Source)
	b = appendMember(b, "bucket", o.Bucket)
	b = appendMember(b, "key", o.Key)
	p.before = append(b, `,"index":`...)

	b = nil
	if o.Organization != "" {
		b = appendMember(b, "organization", o.Organization)
	}
	b = appendMember(b, "account", o.Account)
	if o.AccountName != "" {
		b = appendMember(b, "account_name", o.AccountName)
	}
	b = appendMember(b, "region", o.Region)
	b = appendMember(b, "log_type", o.LogType)
	if len(o.Labels) > 0 {
		b = append(b, `,"labels":`...)
		b = appendLabels(b, o.Labels)
	}
	p.after = append(b, `,"record":`...)
	return p
}

// appendMember appends a comma and a member whose name needs no escaping.
func appendMember(dst []byte, name, value string) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	return appendQuoted(dst, value)
}

// appendLabels appends labels as an object, sorted by name.
func appendLabels(dst []byte, labels map[string]string) []byte {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, name)
		dst = append(dst, ':')
		dst = appendQuoted(dst, labels[name])
	}
	return append(dst, '}')
}

// appendIdentity appends the record's identity as a JSON string. An event id
// is what stands between the quotes in the record, so it goes back between
// quotes as it is, unless it could never have stood there.
func appendIdentity(dst []byte, rec *record.Record) []byte {
	if id := rec.EventID; len(id) > 0 && quotable(id) {
		dst = append(dst, '"')
		dst = append(dst, id...)
		return append(dst, '"')
	}
	return appendQuoted(dst, rec.Identity())
}

// quotable reports whether s is surely the inside of a JSON string: printable
// ASCII without quote and backslash, as event ids are; anything else is looked
// at closely.
func quotable(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted := append(append([]byte{'"'}, s...), '"')
			_, err := unquote(quoted)
			return err == nil
		}
	}
	return true
}
