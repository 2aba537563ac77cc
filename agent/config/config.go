// Package config turns the TOML file into a Config, or into the list of all
// that is wrong with it. Defaults are values (Default, DefaultSource,
// DefaultOutput), there is one Validate, and the documented example that ships
// is Example.
//
// A file goes through in three steps: the TOML is read (document.go), each key
// is matched with a field and decoded (fields.go, decode.go), and the values
// are judged (validate.go). Every step adds to one list of problems, so that an operator
// sees them all at once; only broken TOML is reported alone.
//
// Everything here is plain data once made, and safe to read from any
// goroutine.
package config

import "time"

// Config is a whole configuration.
type Config struct {
	Agent   Agent
	Sources []Source
	Outputs []Output
}

// Agent is the [agent] table: what concerns the process as a whole.
type Agent struct {
	StateDir  string // checkpoint and control socket
	LogLevel  string // debug, info, warn or error
	LogFormat string // json or console
	LogFile   string // "" = standard error

	Listen      string // host:port of the status page; "" = off
	ListenToken Secret

	Downloads    int  // objects fetched at once; 0 = by the machine
	Memory       Size // ceiling for records in flight
	MaxRecord    Size // a longer record is parked
	DrainTimeout Duration
	Proxy        URL // for AWS and outputs; empty = from the environment
}

// Source is one [[source]]: bucket, prefix and credentials, and how it is
// listed.
type Source struct {
	Name    string
	Enabled bool
	Labels  map[string]string // nil if none

	Bucket      Bucket
	Credentials Credentials
	Scope       Scope
	Start       Start
	Listing     Listing

	DropSelf bool // leave out the agent's own calls
	Accounts []Account
	Filters  []Filter
}

// Bucket says where a source's objects are and how to reach them.
type Bucket struct {
	Name   string
	Prefix string // the trail's S3 key prefix, without AWSLogs/ and without slashes at its ends
	Region string // a region, or "auto"
	Owner  string // account id that must own the bucket; "" = not checked

	Endpoint      string // URL; "" = AWS's own
	AllowHTTP     bool
	PathStyle     bool
	FIPS          bool
	DualStack     bool
	RequesterPays bool
	CAFile        string // PEM; "" = the system's
}

// Scope says which streams of a bucket are wanted. An empty list leaves that
// level to discovery.
type Scope struct {
	LogTypes        []string // empty = all four
	Organizations   []string // ["none"] = there is no such level
	Accounts        []string
	ExcludeAccounts []string
	Regions         []string
	ExcludeRegions  []string
}

// Listing says how often a source is listed and how far back.
type Listing struct {
	Refresh           Duration // between two listings of an active stream
	IdleRefresh       Duration // what a quiet stream backs off to
	LookBack          Duration // how far behind the watermark a tail begins
	LateHorizon       Duration // how long after its stamp an object may still appear
	Discovery         Duration // between two discoveries
	MaxListsPerMinute int      // 0 = no cap
}

// Credentials says as whom a source is read. Which fields mean anything hangs
// on Type.
type Credentials struct {
	Type string // auto, static, profile, ec2-role, container, web-identity or process

	AccessKeyID     string
	SecretAccessKey Secret
	SessionToken    Secret
	// Files are the files that the keys were read from.
	Files KeyFiles

	Profile     string   // "" = the profile named default
	SharedFiles []string // empty = the SDK's own places
	TokenFile   string
	Command     string

	IMDSEndpoint string
	STSEndpoint  string
	AssumeRole   []AssumeRole // in this order, each with the credentials of the one before
}

// KeyFiles are the files that an access key was read from, by file:/path; "" for
// what was not.
type KeyFiles struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
}

// AssumeRole is one step of a chain of roles.
type AssumeRole struct {
	ARN         string
	ExternalID  string
	SessionName string
	Duration    Duration
}

// Account names one account, labels it, or leaves it out.
type Account struct {
	ID      string // 12 digits
	Name    string
	Enabled bool
	Labels  map[string]string
}

// Filter is one rule; the first that matches a record decides.
type Filter struct {
	Action string // drop or keep
	When   string // an expression over the event, or
	Match  string // a regular expression over the record's bytes
}

// The output types.
const (
	TypeHTTPS  = "https"
	TypeSyslog = "syslog"
	TypeFile   = "file"
	TypeStdout = "stdout"
)

// Output is one [[output]]. Of HTTPS, Syslog and File only the one that Type
// names means anything; the others hold defaults.
type Output struct {
	Name    string
	Enabled bool
	Type    string   // one of the Type constants
	Sources []string // names of sources; empty = all
	Record  string   // raw, envelope, cef or ocsf

	HTTPS  HTTPS
	Syslog Syslog
	File   File
}

// HTTPS is what an output of type https has to know.
type HTTPS struct {
	URL    URL
	Format string // ndjson, json-array, splunk-hec, elastic-bulk or otlp

	Token    Secret // bearer; for Splunk the HEC token
	Username string
	Password Secret
	Headers  map[string]Secret // by name as written; values may carry keys. nil if none
	OAuth2   OAuth2

	Compression  string // gzip or none
	BatchRecords int
	BatchBytes   Size // before compression
	BatchWait    Duration
	Connections  int
	Timeout      Duration // of one request
	AllowHTTP    bool
	TLS          TLS
	Indexing     Indexing
}

// Indexing is what some formats tell the receiver about where a record goes.
type Indexing struct {
	Ack        bool // splunk-hec: wait for indexer acknowledgement
	Index      string
	Sourcetype string
	Fields     map[string]string // nil if none
}

// Syslog is what an output of type syslog has to know.
type Syslog struct {
	Addresses []string // host:port; several = fail over
	Transport string   // udp, tcp, tls, relp or relp-tls

	MessageFormat string // rfc5424 or rfc3164
	Framing       string // octet-counting or lf; means nothing with udp and relp
	Facility      string // of RFC 5424, by its usual name
	Severity      string // the same
	AppName       string
	Hostname      string // "" = the machine's

	MaxMessage   Size     // of a whole message, without its frame
	Oversize     string   // reduce or park
	ConfirmDelay Duration // tcp, tls
	TLS          TLS
}

// File is what an output of type file has to know.
type File struct {
	Path       string
	RotateSize Size
	RotateAge  Duration
	Keep       int // rotated files
}

// TLS is the [output.tls] table. Files are PEM.
type TLS struct {
	CAFile     string // "" = the system's
	CertFile   string // with KeyFile: the agent's own certificate
	KeyFile    string
	ServerName string // "" = the host that is dialed
	MinVersion string // "1.2" or "1.3"
}

// OAuth2 is the [output.oauth2] table: client credentials.
type OAuth2 struct {
	TokenURL     string
	ClientID     string
	ClientSecret Secret
	Scopes       []string
	Audience     string
}

// Default returns the configuration of an empty file: the agent's defaults, no
// source, no output.
func Default() Config {
	return Config{Agent: Agent{
		StateDir:     defaultStateDir,
		LogLevel:     "info",
		LogFormat:    "json",
		Listen:       "127.0.0.1:9810",
		Memory:       64 * MiB,
		MaxRecord:    MiB,
		DrainTimeout: Duration(20 * time.Second),
	}}
}

// DefaultSource returns a source as it is before its keys are read. Name and
// bucket are missing.
func DefaultSource() Source {
	return Source{
		Enabled:     true,
		Bucket:      Bucket{Region: "auto"},
		Credentials: Credentials{Type: "auto"},
		Start:       startAgo(24 * time.Hour),
		Listing: Listing{
			Refresh:     Duration(time.Minute),
			IdleRefresh: Duration(10 * time.Minute),
			LookBack:    Duration(time.Hour),
			LateHorizon: Duration(30 * day),
			Discovery:   Duration(15 * time.Minute),
		},
	}
}

// DefaultOutput returns an output of a type as it is before its keys are read.
// Name and destination are missing.
func DefaultOutput(outputType string) Output {
	return Output{
		Enabled: true,
		Type:    outputType,
		Record:  "raw",
		HTTPS: HTTPS{
			Format:       "ndjson",
			Compression:  "gzip",
			BatchRecords: 1000,
			BatchBytes:   MiB,
			BatchWait:    Duration(time.Second),
			Connections:  4,
			Timeout:      Duration(30 * time.Second),
			TLS:          TLS{MinVersion: "1.2"},
			Indexing:     Indexing{Sourcetype: "aws:cloudtrail"},
		},
		Syslog: Syslog{
			Transport:     "tls",
			MessageFormat: "rfc5424",
			Framing:       "octet-counting",
			Facility:      "local0",
			Severity:      "info",
			AppName:       "cloudtrail",
			MaxMessage:    64 * KiB,
			Oversize:      "reduce",
			ConfirmDelay:  Duration(2 * time.Second),
			TLS:           TLS{MinVersion: "1.2"},
		},
		File: File{RotateSize: 100 * MiB, RotateAge: Duration(24 * time.Hour), Keep: 10},
	}
}

func defaultAssumeRole() AssumeRole {
	return AssumeRole{SessionName: "trailpoll", Duration: Duration(time.Hour)}
}

func defaultAccount() Account { return Account{Enabled: true} }
