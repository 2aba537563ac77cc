package s3source

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"

	"github.com/trailpoll/trailpoll/regions"
)

// credentialsError says that there are no credentials to sign with.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "getting credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// provider is an aws.CredentialsProvider that looks for its credentials when
// they are first needed, again when that failed, and again when S3 refuses
// what it found: files may have been rewritten meanwhile.
type provider struct {
	cfg  *Config
	http *http.Client

	mu    sync.Mutex
	found aws.CredentialsProvider // nil until they are found
}

// Retrieve implements aws.CredentialsProvider.
func (p *provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := p.find(ctx)
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	creds, err := found.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	return creds, nil
}

// forget makes the next Retrieve look again.
func (p *provider) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = nil
}

func (p *provider) find(ctx context.Context) (aws.CredentialsProvider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	c := &p.cfg.Credentials
	if c.Type == Static {
		p.found = credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
		return p.found, nil
	}

	options := p.options()
	if c.Type == Profile {
		if err := p.checkProfile(ctx); err != nil {
			return nil, err
		}
		options = append(options, awsconfig.WithSharedConfigProfile(c.profile()))
		if len(c.SharedFiles) > 0 {
			options = append(options,
				awsconfig.WithSharedConfigFiles(c.SharedFiles), awsconfig.WithSharedCredentialsFiles(c.SharedFiles))
		}
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, err
	}
	p.found = loaded.Credentials
	return p.found, nil
}

func (c *Credentials) profile() string {
	if c.Profile == "" {
		return awsconfig.DefaultSharedConfigProfile
	}
	return c.Profile
}

// options are those of both chains: our own connections, no log, and no
// instance credentials by IMDSv1, which any redirected request can steal.
func (p *provider) options() []func(*awsconfig.LoadOptions) error {
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithHTTPClient(p.http),
		awsconfig.WithLogger(logging.Nop{}),
		awsconfig.WithRetryer(newRetryer),
		awsconfig.WithAppID(appID),
		awsconfig.WithDefaultRegion(firstRegion),
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) {
			direct := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil })
			o.Client = imds.New(imds.Options{
				HTTPClient: direct, EnableFallback: aws.FalseTernary, Logger: logging.Nop{},
			})
		}),
	}
	// STS must be asked in the bucket's partition.
	if region := p.cfg.Region; region != Auto && p.cfg.Endpoint == "" {
		options = append(options, awsconfig.WithRegion(region))
		if _, err := regions.STSEndpoint(region, regions.Variant{FIPS: p.cfg.FIPS}); err == nil && p.cfg.FIPS {
			options = append(options, awsconfig.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
		}
	}
	return options
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
