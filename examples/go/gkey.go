package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// loginKey makes a GKEY: partnerid & partneruserid & $1$expiry$signature. It may be valid for one day at most.
func loginKey(group, user, apiKey string, validFor time.Duration) string {
	expiry := strconv.FormatInt(time.Now().Add(validFor).Unix(), 10)
	mac := hmac.New(sha256.New, []byte(apiKey))
	mac.Write([]byte(group + user + "1" + expiry)) // the signed user is not URL-encoded
	signature := base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	// QueryEscape writes a space as a plus, which a login key would take as a plus.
	encoded := strings.ReplaceAll(url.QueryEscape(user), "+", "%20")
	return group + "&" + encoded + "&$1$" + expiry + "$" + signature
}
