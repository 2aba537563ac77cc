package regions_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/regions"
)

// Every region and variant is what the SDK's own rules make of it, and so is a
// region of each partition that is not known yet.
func TestEndpointsAreTheSDKs(t *testing.T) {
	var names []string
	for _, r := range regions.All() {
		names = append(names, r.Name)
	}
	names = append(names, "eu-north-9", "us-gov-south-3", "cn-south-1", "eusc-de-west-2",
		"us-iso-south-1", "us-isob-south-1", "eu-isoe-north-1", "us-isof-north-1")
	for _, name := range names {
		for _, v := range []regions.Variant{{}, {FIPS: true}, {DualStack: true}, {FIPS: true, DualStack: true}} {
			t.Run(fmt.Sprintf("%s/fips=%t/dualstack=%t", name, v.FIPS, v.DualStack), func(t *testing.T) {
				got, gotErr := regions.S3Endpoint(name, v)
				want, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), s3.EndpointParameters{
					Region: &name, UseFIPS: &v.FIPS, UseDualStack: &v.DualStack,
				})
				compare(t, "S3", got, gotErr, want.URI.Host, err)

				got, gotErr = regions.STSEndpoint(name, v)
				wantSTS, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), sts.EndpointParameters{
					Region: &name, UseFIPS: &v.FIPS, UseDualStack: &v.DualStack,
				})
				compare(t, "STS", got, gotErr, wantSTS.URI.Host, err)
			})
		}
	}
}

func compare(t *testing.T, service, got string, gotErr error, want string, wantErr error) {
	t.Helper()
	if got != want || (gotErr == nil) != (wantErr == nil) {
		t.Errorf("%s: %q, %v; the SDK says %q, %v", service, got, gotErr, want, wantErr)
	}
}

// Where there are FIPS endpoints is what the SDK's endpoint tables name, region
// by region: its rules make up a name for every region.
func TestFIPSIsTheSDKs(t *testing.T) {
	for service, has := range map[string]func(string) bool{"s3": regions.HasS3FIPS, "sts": regions.HasSTSFIPS} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}",
			"github.com/aws/aws-sdk-go-v2/service/"+service+"/internal/endpoints").Output()
		if err != nil {
			t.Skipf("the go command does not find the SDK: %v", err)
		}
		table, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "endpoints.go"))
		if err != nil {
			t.Fatal(err)
		}
		var named []string
		for _, m := range regexp.MustCompile(`Region: +"([a-z0-9-]+)",\s+Variant: +(.*),`).FindAllStringSubmatch(string(table), -1) {
			if strings.Contains(m[2], "FIPSVariant") {
				named = append(named, m[1])
			}
		}
		if len(named) < 6 {
			t.Fatalf("%s: the table is not understood: %v", service, named)
		}
		for _, r := range regions.All() {
			if has(r.Name) != slices.Contains(named, r.Name) {
				t.Errorf("%s in %s: %t, the SDK names %v", service, r.Name, has(r.Name), named)
			}
		}
	}
	for name, want := range map[string]bool{"us-east-9": true, "cn-south-9": false, "mars": false} {
		if regions.HasS3FIPS(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

// of returns the known regions of a partition.
func of(partition string) []regions.Region {
	return slices.DeleteFunc(regions.All(), func(r regions.Region) bool { return r.Partition != partition })
}

// Each partition's main region is one of its own.
func TestMainRegions(t *testing.T) {
	for _, p := range regions.Partitions() {
		if at, ok := regions.PartitionOf(p.Main); !ok || at.ID != p.ID || !slices.ContainsFunc(of(p.ID), func(r regions.Region) bool { return r.Name == p.Main }) {
			t.Errorf("%s: %s", p.ID, p.Main)
		}
		if got, ok := regions.ByID(p.ID); !ok || got.Main != p.Main {
			t.Errorf("%s: %+v", p.ID, got)
		}
	}
	if _, ok := regions.ByID("aws-mars"); ok {
		t.Error("there is a partition on Mars")
	}
}

func TestEndpointsThatAreNot(t *testing.T) {
	if _, err := regions.S3Endpoint("cn-north-1", regions.Variant{FIPS: true}); err == nil ||
		err.Error() != "choosing the S3 endpoint of cn-north-1: partition aws-cn has no FIPS endpoints for S3" {
		t.Errorf("FIPS in China: %v", err)
	}
	for _, name := range []string{"", "zz-foo-1", "us-east", "us-east-1a", "US-EAST-1", "us-east-1.evil", "us-gov-west-", "aws-global", "us-e@st-1"} {
		if host, err := regions.S3Endpoint(name, regions.Variant{}); err == nil {
			t.Errorf("S3 of %q: %s, want an error", name, host)
		}
		if host, err := regions.STSEndpoint(name, regions.Variant{}); err == nil {
			t.Errorf("STS of %q: %s, want an error", name, host)
		}
	}
}

func TestPartitionOf(t *testing.T) {
	for _, r := range regions.All() {
		p, ok := regions.PartitionOf(r.Name)
		if !ok || p.ID != r.Partition {
			t.Errorf("%s is in %q (%t), want %s", r.Name, p.ID, ok, r.Partition)
		}
	}
}

func TestTable(t *testing.T) {
	counts := map[string]int{}
	seen := map[string]bool{}
	for _, r := range regions.All() {
		counts[r.Partition]++
		if seen[r.Name] || r.Title == "" {
			t.Errorf("%+v: twice, or without a title", r)
		}
		seen[r.Name] = true
	}
	want := map[string]int{
		"aws": 34, "aws-us-gov": 2, "aws-cn": 2, "aws-eusc": 1,
		"aws-iso": 2, "aws-iso-b": 2, "aws-iso-e": 1, "aws-iso-f": 2,
	}
	if d := cmp.Diff(want, counts); d != "" {
		t.Error(d)
	}
	if len(regions.Partitions()) != len(want) {
		t.Errorf("%d partitions, want %d", len(regions.Partitions()), len(want))
	}
	for _, p := range regions.Partitions() {
		names := of(p.ID)
		if len(names) != want[p.ID] || !slices.IsSortedFunc(names, func(a, b regions.Region) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: %v", p.ID, names)
		}
	}
}

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{
		"us-east-1":                  "us-east-1",
		" EU-West-1 ":                "eu-west-1",
		"US_EAST_2":                  "us-east-2",
		"US_STANDARD":                "us-east-1",
		"US Standard":                "us-east-1",
		"EU":                         "eu-west-1",
		"EU_IRELAND":                 "eu-west-1",
		"US_WEST_OREGON":             "us-west-2",
		"EU_Frankfurt":               "eu-central-1",
		"GovCloud":                   "us-gov-west-1",
		"US_GOV_EAST_1":              "us-gov-east-1",
		"Europe (Ireland)":           "eu-west-1",
		"asia pacific (new zealand)": "ap-southeast-6",
		"":                           "",
		"mars-north-1":               "",
	} {
		r, ok := regions.Lookup(name)
		if r.Name != want || ok != (want != "") {
			t.Errorf("Lookup(%q) = %q, %t; want %q", name, r.Name, ok, want)
		}
	}
}

// An old name leads to a known region, and never hides a region's own name.
func TestLegacyNames(t *testing.T) {
	for _, r := range regions.All() {
		for _, old := range regions.LegacyNames(r.Name) {
			if got, ok := regions.Lookup(old); !ok || got != r {
				t.Errorf("%s leads to %+v, want %s", old, got, r.Name)
			}
		}
	}
	if d := cmp.Diff([]string{"EU", "EU_IRELAND", "EU_WEST_IRELAND"}, regions.LegacyNames("eu-west-1")); d != "" {
		t.Error(d)
	}
}

// The tables can't be changed from outside.
func TestCopies(t *testing.T) {
	regions.All()[0].Name = "changed"
	regions.Partitions()[0].ID = "changed"
	if regions.All()[0].Name == "changed" || regions.Partitions()[0].ID == "changed" {
		t.Error("a caller changed the table")
	}
}

func FuzzLookup(f *testing.F) {
	for _, s := range []string{"us-east-1", "EU_IRELAND", "us-gov-west-1", "eu-", "-1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if r, ok := regions.Lookup(name); ok {
			if _, ok := regions.PartitionOf(r.Name); !ok {
				t.Errorf("%q leads to %q, which no partition has", name, r.Name)
			}
		}
		regions.PartitionOf(name)
	})
}

// What has the shape of a region has one partition and every endpoint that the
// partition has, each a plain host name.
func TestShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`(us|eu|ap|us-gov|cn|us-isob|eusc-de)-[a-z]{1,9}-[0-9]{1,2}`).Draw(t, "region")
		v := regions.Variant{FIPS: rapid.Bool().Draw(t, "fips"), DualStack: rapid.Bool().Draw(t, "dualstack")}
		p, ok := regions.PartitionOf(name)
		if !ok {
			t.Fatalf("%s has no partition", name)
		}
		host, err := regions.S3Endpoint(name, v)
		if (err != nil) != (v.FIPS && !p.S3FIPS) {
			t.Fatalf("%s %+v: %v", name, v, err)
		}
		if err == nil && (!strings.HasSuffix(host, "."+name+"."+p.Suffix) || strings.ContainsAny(host, "/: ")) {
			t.Fatalf("%s: %s", name, host)
		}
	})
}
