package s3source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/trailpoll/trailpoll/regions"
)

// credentialsError says that there are no credentials to sign with.
type credentialsError struct {
	step *step
	err  error
}

func (e *credentialsError) Error() string { return e.step.doing() + ": " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// provider is where a source's credentials come from: one step of the type
// that is configured, and one for each role on top.
type provider struct {
	cfg   *Config
	http  *http.Client // for AWS
	local *http.Client // for what answers for this very machine
	steps []*step      // at least one

	renewing chan struct{} // holds one token: one renewal at a time

	mu      sync.Mutex
	region  string    // the shared files' or the environment's; "" if they name none
	seen    []string  // secrets in use, so that no error shows one
	useless time.Time // when a renewal last brought nothing
}

// step is one way to credentials.
type step struct {
	keeper
	role  *Role // nil: not by assuming a role
	token bool  // role is assumed with a token, without other credentials
}

// doing says what a step does, as a gerund.
func (s *step) doing() string {
	if s.role != nil {
		return "assuming " + s.role.ARN
	}
	return "getting credentials"
}

// newProvider returns the steps to a source's credentials. It does no I/O.
func newProvider(cfg *Config, client, local *http.Client) *provider {
	p := &provider{cfg: cfg, http: client, local: local, renewing: make(chan struct{}, 1)}
	c := &cfg.Credentials
	first, roles := &step{}, c.Roles
	switch c.Type {
	case Static:
		first.fetch = p.static()
	case EC2Role:
		first.fetch = ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = p.imds(true) }).Retrieve
	case Container:
		first.fetch = p.container
	case WebIdentity:
		first.token = true
		if c.TokenFile != "" {
			first.role, roles = &c.Roles[0], c.Roles[1:]
		}
		first.fetch = func(ctx context.Context) (aws.Credentials, error) { return p.webIdentity(ctx, first.role) }
	case Process:
		first.fetch = p.process
	default:
		first.fetch = p.shared
	}
	p.add(first)
	for i := range roles {
		before := p.steps[len(p.steps)-1]
		s := &step{role: &roles[i]}
		s.fetch = func(ctx context.Context) (aws.Credentials, error) { return p.assume(ctx, before, s.role) }
		p.add(s)
	}
	return p
}

// add makes a step the last one. Whatever it fetches is a secret from then on.
func (p *provider) add(s *step) {
	fetch := s.fetch
	s.fetch = func(ctx context.Context) (aws.Credentials, error) {
		got, err := fetch(ctx)
		if err != nil {
			if inner, ok := errors.AsType[*credentialsError](err); ok {
				return got, inner // of a step before
			}
			return got, &credentialsError{s, err}
		}
		p.secret(got.SecretAccessKey, got.SessionToken)
		return got, nil
	}
	p.steps = append(p.steps, s)
}

// secret remembers what no error may show.
func (p *provider) secret(values ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range values {
		if v != "" && !slices.Contains(p.seen, v) {
			p.seen = append(p.seen, v)
		}
	}
	const most = 64 // more than are valid at once
	p.seen = p.seen[max(0, len(p.seen)-most):]
}

func (p *provider) secrets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// usedKey is the context's key for a *used.
type usedKey struct{}

// used is what a call was signed with.
type used struct {
	credentials aws.Credentials
	began       time.Time
}

// Retrieve implements aws.CredentialsProvider.
func (p *provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	last := p.steps[len(p.steps)-1]
	got, err := last.Retrieve(ctx)
	if err != nil {
		if _, ok := errors.AsType[*credentialsError](err); !ok && !isContext(err) {
			err = &credentialsError{last, err}
		}
		return aws.Credentials{}, err
	}
	if u, ok := ctx.Value(usedKey{}).(*used); ok {
		u.credentials = got
	}
	return got, nil
}

// renew looks for credentials anew, because AWS has refused those that a call
// was signed with, and reports whether there are others now. Of many calls that
// are refused at once one looks.
func (p *provider) renew(ctx context.Context, u *used) bool {
	if !u.credentials.HasKeys() {
		return false
	}
	select {
	case p.renewing <- struct{}{}:
		defer func() { <-p.renewing }()
	case <-ctx.Done():
		return false
	}
	p.mu.Lock()
	inVain := !p.useless.Before(u.began)
	p.mu.Unlock()
	if inVain {
		return false
	}
	last := p.steps[len(p.steps)-1]
	last.forget(u.credentials)
	got, err := last.Retrieve(ctx)
	if err == nil && !sameKeys(got, u.credentials) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.useless = time.Now()
	return false
}

// static returns the keys of the config, and when they are asked for again,
// what is in their place by then.
func (p *provider) static() func(context.Context) (aws.Credentials, error) {
	c := &p.cfg.Credentials
	keys := Keys{c.AccessKeyID, c.SecretAccessKey, c.SessionToken}
	first := true
	return func(context.Context) (aws.Credentials, error) {
		if c.Reload != nil && !first {
			got, err := c.Reload()
			if err != nil {
				return aws.Credentials{}, err
			}
			keys = got
		}
		first = false
		return aws.Credentials{
			AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.SessionToken, Source: "static",
		}, nil
	}
}

// shared follows the SDK's default chain, or that of a profile. Files are read
// each time: they may have been written anew.
func (p *provider) shared(ctx context.Context) (aws.Credentials, error) {
	c := &p.cfg.Credentials
	options := p.options()
	if c.Type == Profile {
		if err := p.checkProfile(ctx); err != nil {
			return aws.Credentials{}, err
		}
		options = append(options, awsconfig.WithSharedConfigProfile(c.profile()))
		if len(c.SharedFiles) > 0 {
			options = append(options,
				awsconfig.WithSharedConfigFiles(c.SharedFiles), awsconfig.WithSharedCredentialsFiles(c.SharedFiles))
		}
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Credentials{}, err
	}
	p.mu.Lock()
	p.region = loaded.Region
	p.mu.Unlock()
	return loaded.Credentials.Retrieve(ctx)
}

func (c *Credentials) profile() string {
	if c.Profile == "" {
		return awsconfig.DefaultSharedConfigProfile
	}
	return c.Profile
}

// options are those of both chains: our own connections, no log, no standard
// error for processes, and no instance credentials by IMDSv1, which any
// redirected request can steal.
func (p *provider) options() []func(*awsconfig.LoadOptions) error {
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithHTTPClient(p.buildable()),
		awsconfig.WithLogger(logging.Nop{}),
		awsconfig.WithRetryer(newRetryer),
		awsconfig.WithAppID(appID),
		awsconfig.WithDefaultRegion(firstRegion),
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = p.imds(false) }),
	}
	if e := p.cfg.Credentials.STSEndpoint; e != "" {
		options = append(options, awsconfig.WithEndpointResolverWithOptions( //nolint:staticcheck // the only way to name the endpoint of STS alone
			aws.EndpointResolverWithOptionsFunc(func(service, region string, _ ...any) (aws.Endpoint, error) { //nolint:staticcheck // as above
				if service != sts.ServiceID {
					return aws.Endpoint{}, &aws.EndpointNotFoundError{} //nolint:staticcheck // as above
				}
				return aws.Endpoint{URL: e, SigningRegion: stsRegion(e, region), Source: aws.EndpointSourceCustom}, nil //nolint:staticcheck // as above
			})))
	}
	options = append(options, awsconfig.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = p.http }))
	// STS must be asked in the bucket's partition.
	if region := p.cfg.home; region != "" {
		options = append(options, awsconfig.WithRegion(region))
		if p.cfg.FIPS && regions.HasSTSFIPS(region) {
			options = append(options, awsconfig.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
		}
	}
	return options
}

// buildable returns a client like ours, of the only kind that the SDK can add
// the certificates to that AWS_CA_BUNDLE or a profile's ca_bundle names: with
// any other it fails where they are set.
func (p *provider) buildable() awsconfig.HTTPClient {
	ours, ok := p.http.Transport.(*stallTransport)
	if !ok {
		return p.http
	}
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		from := ours.base
		t.Proxy, t.OnProxyConnectResponse = from.Proxy, from.OnProxyConnectResponse
		t.DialContext, t.TLSClientConfig = from.DialContext, from.TLSClientConfig.Clone()
		t.TLSHandshakeTimeout, t.ResponseHeaderTimeout = from.TLSHandshakeTimeout, from.ResponseHeaderTimeout
		// Asked once an hour, by a client that is not kept.
		t.DisableKeepAlives = true
	})
}

// checkProfile fails for a profile that says nothing of credentials: the SDK
// would go on to the container's and the instance's, which nobody asked for.
func (p *provider) checkProfile(ctx context.Context) error {
	c := &p.cfg.Credentials
	for _, name := range c.SharedFiles {
		// The SDK passes over files that it can't read.
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	shared, err := awsconfig.LoadSharedConfigProfile(ctx, c.profile(), func(o *awsconfig.LoadSharedConfigOptions) {
		o.Logger = logging.Nop{}
		if len(c.SharedFiles) > 0 {
			o.ConfigFiles, o.CredentialsFiles = c.SharedFiles, c.SharedFiles
		} else if env, err := awsconfig.NewEnvConfig(); err == nil {
			if env.SharedConfigFile != "" {
				o.ConfigFiles = []string{env.SharedConfigFile}
			}
			if env.SharedCredentialsFile != "" {
				o.CredentialsFiles = []string{env.SharedCredentialsFile}
			}
		}
	})
	if err != nil {
		return err
	}
	for s := &shared; ; s = s.Source {
		switch {
		case s.Source != nil:
			continue
		case s.Credentials.HasKeys(), s.CredentialSource != "", s.CredentialProcess != "",
			s.WebIdentityTokenFile != "", s.SSOSessionName != "", s.SSOStartURL != "", s.LoginSession != "":
			return nil
		}
		return fmt.Errorf("the profile %s holds no credentials", strconv.Quote(s.Profile))
	}
}

// assume assumes a role with the credentials of the step before. If STS refuses
// those, they are looked for anew, once.
func (p *provider) assume(ctx context.Context, before *step, r *Role) (aws.Credentials, error) {
	for try := 0; ; try++ {
		base, err := before.Retrieve(ctx)
		if err != nil {
			return aws.Credentials{}, err
		}
		got, err := stscreds.NewAssumeRoleProvider(p.sts(fixed{base}), r.ARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName, o.Duration = r.SessionName, r.Duration
			if r.ExternalID != "" {
				o.ExternalID = &r.ExternalID
			}
		}).Retrieve(ctx)
		if a, _ := answerOf(err); err != nil && try == 0 && isAboutKeys(a.code) {
			before.forget(base)
			continue
		}
		return got, err
	}
}

// webIdentity assumes a role with a token. nil = the role and the token that the
// environment names.
func (p *provider) webIdentity(ctx context.Context, r *Role) (aws.Credentials, error) {
	file := p.cfg.Credentials.TokenFile
	if r == nil {
		file = os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
		r = &Role{ARN: os.Getenv("AWS_ROLE_ARN"), SessionName: os.Getenv("AWS_ROLE_SESSION_NAME"), Duration: defaultDuration}
		if file == "" || r.ARN == "" {
			return aws.Credentials{}, errors.New("AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN are not set, and no token_file is")
		}
		if r.SessionName == "" {
			r.SessionName = defaultSession
		}
	}
	token, err := readSmall(file)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("reading the token: %w", err)
	}
	if token == "" {
		return aws.Credentials{}, fmt.Errorf("the token file %s is empty", strconv.Quote(file))
	}
	p.secret(token)
	return stscreds.NewWebIdentityRoleProvider(p.sts(aws.AnonymousCredentials{}), r.ARN, tokenText(token), func(o *stscreds.WebIdentityRoleOptions) {
		o.RoleSessionName, o.Duration = r.SessionName, r.Duration
	}).Retrieve(ctx)
}

type tokenText string

// GetIdentityToken implements stscreds.IdentityTokenRetriever.
func (t tokenText) GetIdentityToken() ([]byte, error) { return []byte(t), nil }

// fixed are credentials that are there.
type fixed struct{ value aws.Credentials }

// Retrieve implements aws.CredentialsProvider.
func (f fixed) Retrieve(context.Context) (aws.Credentials, error) { return f.value, nil }
