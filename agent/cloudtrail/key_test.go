package cloudtrail

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/progress"
)

func TestParse(t *testing.T) {
	const pos = "2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220Z_WMiHxZgr5Hdd6UDc.json.gz"
	stamp := time.Date(2023, 7, 10, 12, 20, 0, 0, time.UTC)
	events := progress.Stream{Account: "111122223333", LogType: "CloudTrail", Region: "us-east-1"}
	inOrg := events
	inOrg.Organization = "o-exampleorgid"
	ofType := func(logType string) progress.Stream {
		s := events
		s.LogType = logType
		return s
	}
	log := func(s progress.Stream, position string) parsedKey {
		return parsedKey{Stream: s, Position: position, Stamp: stamp}
	}

	for _, c := range []struct {
		name, prefix, key string
		want              parsedKey
		class             Class
	}{
		{"single account", "", "AWSLogs/111122223333/CloudTrail/us-east-1/" + pos, log(events, pos), Log},
		{"prefix", "a/b", "a/b/AWSLogs/111122223333/CloudTrail/us-east-1/" + pos, log(events, pos), Log},
		{"prefix that ends with a slash", "a/", "a//AWSLogs/111122223333/CloudTrail/us-east-1/" + pos, log(events, pos), Log},
		{"prefix missing", "a", "AWSLogs/111122223333/CloudTrail/us-east-1/" + pos, parsedKey{}, Foreign},
		{"prefix too many", "", "a/AWSLogs/111122223333/CloudTrail/us-east-1/" + pos, parsedKey{}, Foreign},
		{"prefix without its slash", "a", "aAWSLogs/111122223333/CloudTrail/us-east-1/" + pos, parsedKey{}, Foreign},
		{"organisation", "", "AWSLogs/o-exampleorgid/111122223333/CloudTrail/us-east-1/" + pos, log(inOrg, pos), Log},
		{"Control Tower", "o-exampleorgid", "o-exampleorgid/AWSLogs/o-exampleorgid/111122223333/CloudTrail/us-east-1/" + pos, log(inOrg, pos), Log},
		{"Control Tower, old", "o-exampleorgid", "o-exampleorgid/AWSLogs/111122223333/CloudTrail/us-east-1/" + pos, log(events, pos), Log},
		{
			"old name without _", "", "AWSLogs/111122223333/CloudTrail/us-east-1/2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220ZHdkvFTXOA3Vnhbc.json.gz",
			log(events, "2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220ZHdkvFTXOA3Vnhbc.json.gz"), Log,
		},
		{
			"Insight", "", "AWSLogs/111122223333/CloudTrail-Insight/us-east-1/" + strings.Replace(pos, "_CloudTrail_", "_CloudTrail-Insight_", 1),
			log(ofType("CloudTrail-Insight"), strings.Replace(pos, "_CloudTrail_", "_CloudTrail-Insight_", 1)), Log,
		},
		{"name of another type than the folder", "", "AWSLogs/111122223333/CloudTrail-NetworkActivity/us-east-1/" + pos, log(ofType("CloudTrail-NetworkActivity"), pos), Log},
		{"Aggregated", "", "AWSLogs/111122223333/CloudTrail-Aggregated/us-east-1/" + pos, log(ofType("CloudTrail-Aggregated"), pos), Log},
		{
			"region nobody knows", "", "AWSLogs/111122223333/CloudTrail/xx-isoz-northwest-12/" + pos,
			log(progress.Stream{Account: "111122223333", LogType: "CloudTrail", Region: "xx-isoz-northwest-12"}, pos), Log,
		},
		{"delivered again into a later day", "", "AWSLogs/111122223333/CloudTrail/us-east-1/" + strings.Replace(pos, "2023/07/10", "2023/08/01", 1), log(events, strings.Replace(pos, "2023/07/10", "2023/08/01", 1)), Log},
		{
			"digest", "", "AWSLogs/111122223333/CloudTrail-Digest/us-east-1/2023/07/10/111122223333_CloudTrail-Digest_us-east-1_my_trail.x_us-east-1_20230710T124211Z.json.gz",
			parsedKey{}, Digest,
		},
		{
			"backfill digest", "", "AWSLogs/111122223333/CloudTrail-Digest/us-east-1/2023/07/10/111122223333_CloudTrail-Digest_us-east-1_t_us-east-1_20230710T124211Z_backfill.json.gz",
			parsedKey{}, Digest,
		},
		{"digest among the logs", "", "AWSLogs/111122223333/CloudTrail/us-east-1/2023/07/10/111122223333_CloudTrail-Digest_us-east-1_t_us-east-1_20230710T124211Z.json.gz", parsedKey{}, Digest},
		{"marker", "", "AWSLogs/111122223333/CloudTrail/us-east-1/2023/", parsedKey{}, Marker},
		{"marker outside", "", "whatever/", parsedKey{}, Marker},
		{"Config", "", "AWSLogs/111122223333/Config/us-east-1/2023/7/10/ConfigHistory/111122223333_Config_us-east-1_ConfigHistory_x.json.gz", parsedKey{}, Foreign},
		{"Config's check", "", "AWSLogs/111122223333/Config/ConfigWritabilityCheckFile", parsedKey{}, Foreign},
		{"load balancer", "", "AWSLogs/111122223333/elasticloadbalancing/us-east-1/2023/07/10/x.log.gz", parsedKey{}, Foreign},
		{"log type of tomorrow", "", "AWSLogs/111122223333/CloudTrail-Tomorrow/us-east-1/" + pos, parsedKey{}, Foreign},
		{"account of 11 digits", "", "AWSLogs/11112222333/CloudTrail/us-east-1/" + pos, parsedKey{}, Foreign},
		{"organisation in capitals", "", "AWSLogs/o-EXAMPLE/111122223333/CloudTrail/us-east-1/" + pos, parsedKey{}, Foreign},
		{"region without number", "", "AWSLogs/111122223333/CloudTrail/global/" + pos, parsedKey{}, Foreign},
		{"nothing", "", "", parsedKey{}, Foreign},
		{"root", "", "AWSLogs", parsedKey{}, Foreign},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, class := parse(c.prefix, c.key)
			if got != c.want || class != c.class {
				t.Fatalf("parse(%q, %q)\n got %+v %v\nwant %+v %v", c.prefix, c.key, got, class, c.want, c.class)
			}
			if class == Log && StreamPrefix(c.prefix, got.Stream)+got.Position != c.key {
				t.Fatalf("%q + %q is not the key", StreamPrefix(c.prefix, got.Stream), got.Position)
			}
		})
	}
}

func TestParsePosition(t *testing.T) {
	s := progress.Stream{Account: "111122223333", LogType: "CloudTrail", Region: "us-east-1"}
	const good = "2024/02/29/111122223333_CloudTrail_us-east-1_20240229T2359Z_WMiHxZgr5Hdd6UDc.json.gz"
	for _, c := range []struct {
		old, new string // what to change in good
		want     Class
	}{
		{"", "", Log},
		{"T2359Z", "T0000Z", Log},
		{"T2359Z", "T2400Z", Foreign},
		{"T2359Z", "T2360Z", Foreign},
		{"20240229T", "20230229T", Foreign},
		{"20240229T", "20000229T", Log},
		{"20240229T", "19000229T", Foreign},
		{"20240229T", "20240431T", Foreign},
		{"20240229T", "20240400T", Foreign},
		{"20240229T", "20241301T", Foreign},
		{"20240229T", "20240001T", Foreign},
		{"20240229T", "2024022 T", Foreign},
		{"2359Z", "235959Z", Foreign},
		{"2359Z", "2359z", Foreign},
		{"2024/02/29", "2024/02/30", Foreign},
		{"2024/02/29", "2024/03/01", Log},
		{"2024/02/29", "2024-02-29", Foreign},
		{"2024/02/29", "24/02/29", Foreign},
		{"2024/02/29/", "2024/02/29/x/", Foreign},
		{"111122223333_", "444455556666_", Log},
		{"111122223333_", "1111222233334_", Foreign},
		{"_us-east-1_", "_eu-west-3_", Log},
		{"_us-east-1_", "_us_east_1_", Foreign},
		{"_CloudTrail_", "_CloudTrail-Insight_", Log},
		{"_CloudTrail_", "_Config_", Foreign},
		{"_CloudTrail_", "_CloudTrail-Digest_", Digest},
		{"Z_WMi", "ZWMi", Log},
		{"Z_WMi", "Z-WMi", Log},
		{"_WMiHxZgr5Hdd6UDc", "", Foreign},
		{"_WMiHxZgr5Hdd6UDc", "_", Foreign},
		{"_WMiHxZgr5Hdd6UDc", "_a/b", Foreign},
		{"_WMiHxZgr5Hdd6UDc", "_one.json.gz.two", Log},
		{".json.gz", ".json", Foreign},
		{".json.gz", ".json.gz.tmp", Foreign},
		{".json.gz", ".json.gz/", Marker},
		{good, "", Foreign},
		{good, "2024/02/29/", Marker},
	} {
		position := strings.Replace(good, c.old, c.new, 1)
		stamp, class := ParsePosition(s, position)
		if class != c.want || stamp.IsZero() != (class != Log) {
			t.Errorf("ParsePosition(%q) = %v, %v, want %v", position, stamp, class, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ParsePosition(s, good) }); n != 0 {
		t.Errorf("ParsePosition allocates %v times", n)
	}
}

func TestShapes(t *testing.T) {
	for s, want := range map[string]bool{
		"us-east-1": true, "us-gov-west-1": true, "eusc-de-east-1": true, "us-isob-east-1": true, "cn-northwest-1": true,
		"ap-southeast-12": true, "megov-northeast-1r": true,
		"": false, "global": false, "us-east": false, "us-1": false, "-us-east-1": false, "us-east-1-": false, "us--east-1": false,
		"US-EAST-1": false, "us_east_1": false, "1us-east-1": false, "2023-07-10": false, "us-east-1\n": false,
	} {
		if IsRegion(s) != want {
			t.Errorf("IsRegion(%q) = %v", s, !want)
		}
	}
	for s, want := range map[string]bool{
		"o-a1b2c3d4e5": true, "o-exampleorgid": true, "o-" + strings.Repeat("a", 32): true,
		"o-" + strings.Repeat("a", 33): false, "o-": false, "o": false, "x-exampleorgid": false, "o-Example": false, "o-a/b": false,
	} {
		if IsOrganization(s) != want {
			t.Errorf("IsOrganization(%q) = %v", s, !want)
		}
	}
	if got := LogTypes(); !slices.Equal(got, []string{"CloudTrail", "CloudTrail-Insight", "CloudTrail-NetworkActivity", "CloudTrail-Aggregated"}) {
		t.Errorf("LogTypes() = %q", got)
	}
	for _, s := range LogTypes() {
		if !IsLogType(s) {
			t.Errorf("IsLogType(%q) = false", s)
		}
	}
}

var drawStream = rapid.Custom(func(t *rapid.T) progress.Stream {
	return progress.Stream{
		Organization: rapid.SampledFrom([]string{"", "o-exampleorgid"}).Draw(t, "organization"),
		Account:      rapid.StringMatching(`[0-9]{12}`).Draw(t, "account"),
		LogType:      rapid.SampledFrom(LogTypes()).Draw(t, "log type"),
		Region:       rapid.StringMatching(`[a-z]{2}(-[a-z]{1,8}){1,2}-[0-9]`).Draw(t, "region"),
	}
})

// drawMinute draws whole minutes, of which many are near each other.
var drawMinute = rapid.Custom(func(t *rapid.T) time.Time {
	days := rapid.SampledFrom([]int{0, 0, 1, 31, 59, 365, 366}).Draw(t, "days")
	minutes := rapid.OneOf(rapid.IntRange(0, 1440), rapid.IntRange(0, 3)).Draw(t, "minutes")
	return time.Date(2023, 12, 31, 23, 58, 0, 0, time.UTC).AddDate(0, 0, days).Add(time.Duration(minutes) * time.Minute)
})

func TestFloorProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStream.Draw(t, "stream")
		at, from := drawMinute.Draw(t, "at"), drawMinute.Draw(t, "from")
		unique := rapid.StringMatching(`_?[A-Za-z0-9]{1,16}`).Draw(t, "unique")
		position := at.Format("2006/01/02/") + s.Account + "_" + s.LogType + "_" + s.Region + "_" + at.Format("20060102T1504Z") + unique + ".json.gz"
		k, class := parse("p", StreamPrefix("p", s)+position)
		if class != Log || k.Stream != s || k.Position != position || !k.Stamp.Equal(at) {
			t.Fatalf("%q is %+v %v", position, k, class)
		}
		// Seconds and the zone of a time make no difference.
		floor := Floor(s, from.Add(59*time.Second).In(time.FixedZone("", -7*3600)))
		if floor != Floor(s, from) {
			t.Fatalf("Floor is %q with seconds, %q without", floor, Floor(s, from))
		}
		if (position > floor) != !at.Before(from) {
			t.Fatalf("%q against floor %q of %v", position, floor, from)
		}
		if _, class := ParsePosition(s, floor); class != Foreign {
			t.Fatalf("floor %q is itself a %v", floor, class)
		}
		// Delivered again into a later day's folder, it is found all the same.
		again := at.AddDate(0, 0, 3).Format("2006/01/02/") + position[dayLen:]
		if stamp, class := ParsePosition(s, again); class != Log || !stamp.Equal(at) || !at.Before(from) && again <= floor {
			t.Fatalf("%q: %v %v against %q", again, stamp, class, floor)
		}
	})
}

func TestFloorEnds(t *testing.T) {
	s := progress.Stream{Account: "111122223333", LogType: "CloudTrail", Region: "us-east-1"}
	for _, at := range []time.Time{{}, time.Unix(-1<<40, 0), time.Unix(1<<40, 0)} {
		if got := Floor(s, at); len(got) != len("0001/01/01/111122223333_CloudTrail_us-east-1_00010101T0000Z") {
			t.Errorf("Floor(%v) = %q", at, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("", "AWSLogs/111122223333/CloudTrail/us-east-1/2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220Z_WMiHxZgr5Hdd6UDc.json.gz")
	f.Add("o-exampleorgid", "o-exampleorgid/AWSLogs/o-exampleorgid/111122223333/CloudTrail-Insight/us-east-1/2023/07/10/111122223333_CloudTrail-Insight_us-east-1_20230710T1220ZWMi.json.gz")
	f.Add("p", "p/AWSLogs/111122223333/CloudTrail-Digest/x")
	f.Add("p", "p/AWSLogs/111122223333/Config/")
	f.Fuzz(func(t *testing.T, prefix, key string) {
		k, class := parse(prefix, key)
		switch class {
		case Log:
			s := k.Stream
			if StreamPrefix(prefix, s)+k.Position != key {
				t.Fatalf("%+v does not make up %q", k, key)
			}
			if !IsAccount(s.Account) || !IsRegion(s.Region) || !IsLogType(s.LogType) || s.Organization != "" && !IsOrganization(s.Organization) {
				t.Fatalf("%+v of %q", s, key)
			}
			if stamp, class := ParsePosition(s, k.Position); class != Log || !stamp.Equal(k.Stamp) {
				t.Fatalf("%q: %v %v, by itself %v %v", key, k.Stamp, Log, stamp, class)
			}
		case Marker:
			if !strings.HasSuffix(key, "/") {
				t.Fatalf("%q is no marker", key)
			}
			fallthrough
		default:
			if k != (parsedKey{}) {
				t.Fatalf("%q is %v with %+v", key, class, k)
			}
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220Z_WMiHxZgr5Hdd6UDc.json.gz")
	f.Add("2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220ZW.json.gz")
	f.Add("2024/02/29/111122223333_CloudTrail-Digest_us-east-1_20240229T1220Z_W.json.gz")
	f.Fuzz(func(t *testing.T, position string) {
		s := progress.Stream{Account: "111122223333", LogType: "CloudTrail", Region: "us-east-1"}
		stamp, class := ParsePosition(s, position)
		if class != Log {
			return
		}
		day, err := time.Parse("2006/01/02/", position[:dayLen])
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.SplitN(position, "_", 4)
		want, err := time.Parse("20060102T1504Z", parts[3][:stampLen])
		if err != nil || !want.Equal(stamp) {
			t.Fatalf("%q: %v, want %v (%v)", position, stamp, want, err)
		}
		named := progress.Stream{Account: parts[0][dayLen:], LogType: parts[1], Region: parts[2]}
		if floor := Floor(named, stamp); !day.Before(stamp.Truncate(24*time.Hour)) && position <= floor {
			t.Fatalf("%q is not above %q", position, floor)
		}
	})
}
