// Package windows knows what a service on Windows may and must be allowed, as
// text: security descriptors, and the identity of a virtual account. It calls
// no system, so that it can be tested anywhere.
package windows

import (
	"crypto/sha1" //nolint:gosec // Windows makes service identities with it
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// ServiceSID returns the identity of the account NT SERVICE\name: S-1-5-80 and
// the SHA-1 of the name in capitals, as UTF-16 (MS-DTYP 2.4.2.4, NT SERVICE).
// It is known before the service is there.
func ServiceSID(name string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(strings.ToUpper(name))) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	sum := sha1.Sum(b) //nolint:gosec // as above
	sid := "S-1-5-80"
	for i := 0; i < len(sum); i += 4 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[i:]))
	}
	return sid
}

// modify is all rights but to delete what is in a directory by way of the
// directory, to change rights, and to take ownership. So the service can't
// replace a file that it may only read.
const modify = "0x1301bf"

// StateSDDL is the security descriptor of the directory with state and
// configuration: SYSTEM and administrators all, the service to read and write,
// nobody else anything, and nothing inherited from above.
func StateSDDL(service string) string {
	return "O:BAG:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;" + modify + ";;;" + ServiceSID(service) + ")"
}

// ConfigSDDL is the security descriptor of the configuration: the service may
// only read it.
func ConfigSDDL(service string) string {
	return "O:BAG:BAD:PAI(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;" + ServiceSID(service) + ")"
}

// Trusted reports whether the owner of a directory, a SID, is one whose
// directory can be made ours: SYSTEM, the administrators, TrustedInstaller, or
// the service. Whoever else made it may keep a hand in it.
func Trusted(owner, service string) bool {
	switch owner {
	case "S-1-5-18", "S-1-5-32-544", ServiceSID("TrustedInstaller"), ServiceSID(service):
		return true
	}
	return false
}
