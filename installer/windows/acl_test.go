package windows

import (
	"strings"
	"testing"
)

func TestServiceSID(t *testing.T) {
	// Known from every Windows.
	const want = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	if got := ServiceSID("TrustedInstaller"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if ServiceSID("trailpoll") != ServiceSID("TrailPoll") {
		t.Error("the name's case matters")
	}
}

func TestTrusted(t *testing.T) {
	for owner, want := range map[string]bool{
		"S-1-5-18":              true, // SYSTEM
		"S-1-5-32-544":          true, // administrators
		ServiceSID("trailpoll"): true,
		"S-1-5-21-1-2-3-1001":   false, // somebody
		"S-1-5-32-545":          false, // users
		"S-1-1-0":               false, // everyone
		ServiceSID("other"):     false,
		"":                      false,
	} {
		if got := Trusted(owner, "trailpoll"); got != want {
			t.Errorf("%q: %v, want %v", owner, got, want)
		}
	}
}

// Nobody but SYSTEM, administrators and the service is let in, nothing is
// inherited, and the service can't write its configuration.
func TestSDDL(t *testing.T) {
	sid := ServiceSID("trailpoll")
	for name, sddl := range map[string]string{"state": StateSDDL("trailpoll"), "config": ConfigSDDL("trailpoll")} {
		if !strings.Contains(sddl, "D:PAI(") {
			t.Errorf("%s: rights are inherited: %s", name, sddl)
		}
		for ace := range strings.SplitSeq(sddl[strings.IndexByte(sddl, '(')+1:], "(") {
			who := strings.TrimSuffix(ace[strings.LastIndexByte(ace, ';')+1:], ")")
			if who != "SY" && who != "BA" && who != sid {
				t.Errorf("%s: %s is let in: %s", name, who, sddl)
			}
			if name == "config" && who == sid && !strings.HasPrefix(ace, "A;;FR;") {
				t.Errorf("the service may do more than read: %s", sddl)
			}
		}
	}
}
