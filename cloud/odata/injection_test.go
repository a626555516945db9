package odata_test

import (
	"net/url"
	"strings"
	"testing"
)

// What would be SQL is a text, a mistake, or nothing; never an error of the
// database, never more rows, and everything is there afterwards.
func TestNothingSentBecomesSQL(t *testing.T) {
	p := populate(t)
	// In some places these are a text, a variable, an alias and a number.
	readable := map[string]bool{`'||(SELECT jwt_secret FROM "user" LIMIT 1)||'`: true, `''`: true, `sqlite_master`: true, `@p`: true, `-9223372036854775809`: true}
	before := p.Want(200, "GET", at("device", "$orderby", "id"), p.AdminSession, "").Body
	for _, s := range corpus() {
		quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
		for _, path := range []string{
			at("device", "$filter", "device_name eq "+quoted), at("device", "$filter", "startswith(uuid,"+quoted+")"),
			at("device", "$filter", "contains(note,"+quoted+") or endswith(note,"+quoted+") or note in ("+quoted+")"),
			at("device", "$filter", "device_tag/any(x:x/value eq "+quoted+" or concat(x/value,"+quoted+") eq "+quoted+")"),
			"/v7/device(uuid=" + url.PathEscape(quoted) + ")", at("device", "$filter", "uuid eq @a", "@a", quoted),
		} {
			a := p.Want(200, "GET", path, p.AdminSession, "")
			if a.Body != `{"d":[]}` && !strings.Contains("it's 100%", s) {
				t.Errorf("%s finds %s", path, a.Body)
			}
		}
		for _, path := range []string{
			at("device", "$filter", s), at("device", "$filter", "device_name eq "+s), at("device", "$filter", "id eq 1 or "+s),
			at("device", "$select", s), at("device", "$orderby", s), at("device", "$orderby", "id "+s), at("device", "$top", s), at("device", "$skip", s),
			at("device", "$expand", s), at("device", "$expand", "device_tag($select="+s+")"), at("device", "$expand", "device_tag($orderby="+s+";$top=1)"),
			"/v7/device(" + url.PathEscape(s) + ")", "/v7/" + url.PathEscape("device "+s), "/v7/device?" + url.QueryEscape(s) + "=1",
			at("device", "$filter", "device_tag/any("+s+":true)"), at("device", "$filter", s+"/any(x:true)"), at("device", "$filter", s+"(uuid,'x')"),
		} {
			if a := p.Do("GET", path, p.AdminSession, ""); a.Status != 400 && a.Status != 404 && (a.Status != 200 || !readable[s]) {
				t.Errorf("%s: %d %.200s", path, a.Status, a.Body)
			}
		}
	}
	if after := p.Want(200, "GET", at("device", "$orderby", "id"), p.AdminSession, "").Body; after != before {
		t.Errorf("before %s\nafter %s", before, after)
	}
}

// corpus is what has been sent to databases through the ages.
func corpus() []string {
	return []string{
		`' OR '1'='1`, `' OR 1=1 --`, `" OR ""="`, `'; DROP TABLE device; --`, `1; DELETE FROM device`, `') OR ('1'='1`, `x' UNION SELECT password FROM "user" --`,
		`1 UNION ALL SELECT 1,2,3`, `(SELECT password FROM "user")`, `'||(SELECT jwt_secret FROM "user" LIMIT 1)||'`, `\' OR 1=1 --`, `%27 OR 1=1`, `/**/OR/**/1=1`,
		`1) OR EXISTS(SELECT 1`, `?`, `$1`, `:id`, `@p`, `%s`, `%!s(MISSING)`, `t.id`, `t."password"`, `"password"`, "`password`", `[password]`, `CAST(1 AS TEXT)`,
		`CASE WHEN 1=1 THEN id END`, `id; ATTACH DATABASE '/tmp/x' AS x`, `pg_sleep(10)`, `randomblob(1000000000)`, `load_extension('x')`, `sqlite_master`, `information_schema.tables`,
		`id COLLATE NOCASE`, `id NULLS FIRST, (SELECT 1)`, `id ASC, password`, `1e309`, `0x41`, `CHAR(65)`, "a\nb", "a\tb'", `{"a":1}`, `*/`, `--`, `;`, `\`, `%`, `_%`, `''`, `ʼ OR 1=1`, `＇`,
		`-9223372036854775809`, `1.7976931348623157e308`, strings.Repeat("'", 101), strings.Repeat("(", 200),
	}
}
