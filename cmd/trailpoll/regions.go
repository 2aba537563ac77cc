package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/regions"
)

// regionsFlags is how regions was called.
type regionsFlags struct {
	asJSON, hosts   bool
	fips, dualStack bool
	partition       string
	bucket          string
}

// regionRow is one region with its endpoints. An endpoint that there is not is
// "".
type regionRow struct {
	Partition   string   `json:"partition"`
	Region      string   `json:"region"`
	Name        string   `json:"name"`
	S3          string   `json:"s3"`
	STS         string   `json:"sts"`
	S3FIPS      string   `json:"s3_fips"`
	STSFIPS     string   `json:"sts_fips"`
	S3Dual      string   `json:"s3_dual_stack"`
	STSDual     string   `json:"sts_dual_stack"`
	S3FIPSDual  string   `json:"s3_fips_dual_stack"`
	STSFIPSDual string   `json:"sts_fips_dual_stack"`
	LegacyNames []string `json:"legacy_names"`
}

func newRegionsCommand() *cobra.Command {
	var f regionsFlags
	c := &cobra.Command{
		Use:   "regions [REGION…]",
		Short: "Print regions, their names, and the endpoints that a firewall must let through",
		Long: "Print partitions, regions and names, and the hosts of S3 and STS that a firewall must let through\n" +
			"on port 443. Old names (US_STANDARD, EU_IRELAND) are understood.\n\n" +
			"A bucket is reached at BUCKET.HOST, or at HOST where its name holds a dot or path_style is set.\n" +
			"STS is needed where roles are assumed. With region = \"auto\" S3 is first asked in the partition's main\n" +
			"region: " + mainRegions() + ".",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			rows, err := f.rows(args)
			if err != nil {
				return err
			}
			show := f.table
			switch {
			case f.asJSON:
				show = f.json
			case f.hosts:
				show = f.plain
			}
			return failed(show(c.OutOrStdout(), rows))
		},
	}
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object, with every endpoint")
	c.Flags().BoolVar(&f.hosts, "hosts", false, "print hosts alone, one a line")
	c.Flags().BoolVar(&f.fips, "fips", false, "only where there are FIPS 140 endpoints, and those")
	c.Flags().BoolVar(&f.dualStack, "dual-stack", false, "the endpoints that answer over IPv6, too")
	c.Flags().StringVar(&f.partition, "partition", "", "only this `PARTITION`, such as aws-us-gov")
	c.Flags().StringVar(&f.bucket, "bucket", "", "with --hosts: the host of this `BUCKET` in the place of every bucket's")
	c.MarkFlagsMutuallyExclusive("json", "hosts")
	return c
}

func mainRegions() string {
	var names []string
	for _, p := range regions.Partitions() {
		names = append(names, p.Main)
	}
	return strings.Join(names[:4], ", ") + " …"
}

// rows returns the regions that are asked for.
func (f *regionsFlags) rows(args []string) ([]regionRow, error) {
	if f.bucket != "" && !f.hosts {
		return nil, fmt.Errorf("--bucket goes with --hosts")
	}
	if f.bucket != "" && !config.IsBucketName(f.bucket) {
		return nil, fmt.Errorf("--bucket: %q is no bucket name", f.bucket)
	}
	if f.partition != "" {
		if _, ok := regions.ByID(f.partition); !ok {
			var ids []string
			for _, p := range regions.Partitions() {
				ids = append(ids, p.ID)
			}
			return nil, fmt.Errorf("--partition: there is no %q; there are %s", f.partition, strings.Join(ids, ", "))
		}
	}
	wanted, err := wantedRegions(args)
	if err != nil {
		return nil, err
	}
	var rows []regionRow
	for _, r := range wanted {
		row := rowOf(r)
		if f.partition != "" && r.Partition != f.partition || f.fips && row.S3FIPS == "" {
			continue
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("there is no such region: S3 has FIPS endpoints in the US, GovCloud, Canada and some iso regions only, and each region is of one partition")
	}
	return rows, nil
}

func wantedRegions(args []string) ([]regions.Region, error) {
	if len(args) == 0 {
		return regions.All(), nil
	}
	var wanted []regions.Region
	for _, name := range args {
		r, ok := regions.Lookup(name)
		if !ok {
			// One that has opened since.
			p, plausible := regions.PartitionOf(name)
			if !plausible {
				return nil, fmt.Errorf("%q is no region; trailpoll regions prints all", name)
			}
			r = regions.Region{Name: name, Partition: p.ID}
		}
		if !slices.Contains(wanted, r) {
			wanted = append(wanted, r)
		}
	}
	return wanted, nil
}

func rowOf(r regions.Region) regionRow {
	s3 := func(v regions.Variant) string {
		host, err := regions.S3Endpoint(r.Name, v)
		if err != nil || v.FIPS && !regions.HasS3FIPS(r.Name) {
			return ""
		}
		return host
	}
	sts := func(v regions.Variant) string {
		host, err := regions.STSEndpoint(r.Name, v)
		if err != nil || v.FIPS && !regions.HasSTSFIPS(r.Name) {
			return ""
		}
		return host
	}
	fips, dual := regions.Variant{FIPS: true}, regions.Variant{DualStack: true}
	both := regions.Variant{FIPS: true, DualStack: true}
	row := regionRow{
		Partition: r.Partition, Region: r.Name, Name: r.Title,
		S3: s3(regions.Variant{}), STS: sts(regions.Variant{}), S3FIPS: s3(fips), STSFIPS: sts(fips),
		S3Dual: s3(dual), STSDual: sts(dual), S3FIPSDual: s3(both), STSFIPSDual: sts(both),
		LegacyNames: regions.LegacyNames(r.Name),
	}
	if row.LegacyNames == nil {
		row.LegacyNames = []string{}
	}
	return row
}

// endpoints returns those of the chosen kind.
func (f *regionsFlags) endpoints(r *regionRow) (s3, sts string) {
	switch {
	case f.fips && f.dualStack:
		return r.S3FIPSDual, r.STSFIPSDual
	case f.fips:
		return r.S3FIPS, r.STSFIPS
	case f.dualStack:
		return r.S3Dual, r.STSDual
	}
	return r.S3, r.STS
}

func (f *regionsFlags) json(w io.Writer, rows []regionRow) error {
	return json.NewEncoder(w).Encode(struct {
		Schema  int         `json:"schema"`
		Regions []regionRow `json:"regions"`
	}{1, rows})
}

func (f *regionsFlags) table(w io.Writer, rows []regionRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PARTITION\tREGION\tNAME\tS3\tSTS")
	for i := range rows {
		s3, sts := f.endpoints(&rows[i])
		if sts == "" {
			sts = "–"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", rows[i].Partition, rows[i].Region, rows[i].Name, s3, sts)
	}
	return t.Flush()
}

// plain prints hosts. Every bucket has one of its own below S3's.
func (f *regionsFlags) plain(w io.Writer, rows []regionRow) error {
	for i := range rows {
		s3, sts := f.endpoints(&rows[i])
		hosts := []string{s3, "*." + s3, sts}
		if f.bucket != "" {
			hosts[1] = f.bucket + "." + s3
			if strings.Contains(f.bucket, ".") {
				hosts[1] = "" // reached in the path
			}
		}
		for _, h := range hosts {
			if h == "" {
				continue
			}
			if _, err := fmt.Fprintln(w, h); err != nil {
				return err
			}
		}
	}
	return nil
}
