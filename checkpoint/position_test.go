package checkpoint

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/progress"
)

var usEast = progress.Stream{Account: "111122223333", LogType: "CloudTrail", Region: "us-east-1"}

// The reference vectors of SipHash-2-4 (key 00…0f, message 00, 01, …).
func TestHashAgainstReference(t *testing.T) {
	var key, msg [16]byte
	for i := range 16 {
		key[i], msg[i] = byte(i), byte(i)
	}
	h := keyOf(key[:])
	for n, want := range map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 15: 0xa129ca6149be45e5} {
		if got := h.sum(msg[:n]); got != want {
			t.Errorf("hash of %d bytes is %#x, want %#x", n, got, want)
		}
	}
}

func TestPositionSize(t *testing.T) {
	for _, c := range []struct {
		name, pos string
		want      int // bytes; 0 = verbatim
	}{
		{"canonical", "2026/11/20/111122223333_CloudTrail_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhbc0.json.gz", 16},
		{"old name", "2026/11/20/111122223333_CloudTrail_us-east-1_20261120T1755ZHdkvFTXOA3Vnhbc0.json.gz", 16},
		{"other day", "2026/11/20/111122223333_CloudTrail_us-east-1_20261101T1755Z_HdkvFTXOA3Vnhbc0.json.gz", 18},
		{"greatest", "2149/06/06/111122223333_CloudTrail_us-east-1_21490606T2359Z_zzzzzzzzzzzzzzzz.json.gz", 16},
		{"other account", "2026/11/20/999922223333_CloudTrail_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhbc0.json.gz", 0},
		{"other type", "2026/11/20/111122223333_CloudTrail-Digest_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhbc0.json.gz", 0},
		{"short unique", "2026/11/20/111122223333_CloudTrail_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhb.json.gz", 0},
		{"bad unique", "2026/11/20/111122223333_CloudTrail_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhb-0.json.gz", 0},
		{"hour 24", "2026/11/20/111122223333_CloudTrail_us-east-1_20261120T2455Z_HdkvFTXOA3Vnhbc0.json.gz", 0},
		{"leap day", "2024/02/29/111122223333_CloudTrail_us-east-1_20240229T0000Z_HdkvFTXOA3Vnhbc0.json.gz", 16},
		{"no leap day", "2026/02/29/111122223333_CloudTrail_us-east-1_20260228T0000Z_HdkvFTXOA3Vnhbc0.json.gz", 0},
		{"too far", "2150/01/01/111122223333_CloudTrail_us-east-1_21500101T0000Z_HdkvFTXOA3Vnhbc0.json.gz", 0},
		{"not gz", "2026/11/20/111122223333_CloudTrail_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhbc0.json.GZ", 0},
		{"empty", "", 0},
		{"folder", "2026/11/20/", 0},
	} {
		got := appendPosition(nil, &usEast, c.pos)
		want := c.want
		if want == 0 {
			want = 4 + len(c.pos)
		}
		if len(got) != want {
			t.Errorf("%s: %d bytes, want %d", c.name, len(got), want)
		}
		back, err := parsePosition(got, &usEast)
		if err != nil || back != c.pos {
			t.Errorf("%s: came back as %q, %v", c.name, back, err)
		}
	}
}

// Days are those of the time package, and canonical names sort as S3 sorts.
func TestPositionOrder(t *testing.T) {
	name := rapid.Custom(func(t *rapid.T) string {
		day := time.Unix(int64(rapid.IntRange(1, 0xFFFF).Draw(t, "day"))*86400, 0).UTC()
		at := day.Add(time.Duration(rapid.IntRange(0, 1439).Draw(t, "minute")) * time.Minute)
		unique := rapid.StringMatching("[0-9A-Za-z]{16}").Draw(t, "unique")
		return fmt.Sprintf("%s/%s_%s_%s_%s_%s.json.gz", day.Format("2006/01/02"), usEast.Account,
			usEast.LogType, usEast.Region, at.Format("20060102T1504Z"), unique)
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		ka, kb := appendPosition(nil, &usEast, a), appendPosition(nil, &usEast, b)
		if len(ka) != 16 {
			t.Fatalf("%q takes %d bytes", a, len(ka))
		}
		if (a < b) != (string(ka) < string(kb)) {
			t.Fatalf("%q and %q sort otherwise as %x and %x", a, b, ka, kb)
		}
		day, ok := folderDay(a)
		if !ok || midnight(day).Format("2006/01/02") != a[:10] {
			t.Fatalf("%q is of day %d, %v", a, day, ok)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("2026/11/20/111122223333_CloudTrail_us-east-1_20261120T1755Z_HdkvFTXOA3Vnhbc0.json.gz")
	f.Add("2026/11/20/111122223333_CloudTrail_us-east-1_20261101T1755ZHdkvFTXOA3Vnhbc0.json.gz")
	f.Add("2026/11/20/x")
	f.Add("")
	f.Fuzz(func(t *testing.T, pos string) {
		key := appendPosition(nil, &usEast, pos)
		back, err := parsePosition(key, &usEast)
		if err != nil || back != pos {
			t.Fatalf("%q came back as %q, %v", pos, back, err)
		}
		// Bytes that nobody wrote are refused or come back as some position,
		// without a panic.
		_, _ = parsePosition([]byte(pos), &usEast)
	})
}
