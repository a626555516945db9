package bucket

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// Address is where the objects are. It has no secrets: those come from the environment,
// or from the file that AWS_SHARED_CREDENTIALS_FILE names.
type Address struct {
	Bucket   string
	Prefix   string // of all keys, without slashes at its ends; may be empty
	Endpoint string // URL of the store; empty: Amazon's in the region
	Region   string
	// PathStyle puts the bucket's name into the path of requests and not into their
	// host name.
	PathStyle bool
}

var (
	bucketRule = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixRule = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
)

// Example is what an address looks like.
const Example = "s3://BUCKET/PREFIX?region=REGION&endpoint=https://HOST"

// ParseAddress reads an address like Example. Its error never has the text in it:
// somebody may have put a secret there.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Address{}, errors.New("it is no URL; it looks like " + Example)
	}
	a := Address{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: "us-east-1"}
	switch {
	case u.User != nil:
		return Address{}, errors.New("it has a user or password; put these into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Scheme != "s3" || u.Fragment != "" || !bucketRule.MatchString(a.Bucket):
		return Address{}, errors.New("it does not look like " + Example)
	case a.Prefix != "" && (!prefixRule.MatchString(a.Prefix) || path.Clean("/"+a.Prefix) != "/"+a.Prefix):
		return Address{}, errors.New("its prefix may have letters, digits, dots, hyphens, underscores and slashes")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err == nil {
		err = a.options(query)
	}
	return a, err
}

func (a *Address) options(query url.Values) error {
	a.PathStyle = query.Has("endpoint")
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "region":
			a.Region = value
		case "endpoint":
			e, err := url.Parse(value)
			if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
				return errors.New("its endpoint has to be a URL like https://s3.example.com")
			}
			a.Endpoint = value
		case "path-style":
			if value != "true" && value != "false" {
				return errors.New("its path-style is true or false")
			}
		default:
			return fmt.Errorf("it has the option %q; known are region, endpoint and path-style", name)
		}
	}
	if style := query.Get("path-style"); style != "" {
		a.PathStyle = style == "true"
	}
	return nil
}

// String is the address without what says how to reach it.
func (a Address) String() string {
	return strings.TrimSuffix("s3://"+a.Bucket+"/"+a.Prefix, "/")
}

// Clear says whether all goes over the network unencrypted.
func (a Address) Clear() bool { return strings.HasPrefix(a.Endpoint, "http://") }
