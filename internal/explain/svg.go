package explain

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Sizes of the pictures, in pixels.
const (
	boxWidth  = 400
	rowHeight = 26
	gap       = 40
	textSize  = 12
)

type canvas struct {
	b             strings.Builder
	width, height int
}

func (c *canvas) grow(x, y int) { c.width, c.height = max(c.width, x), max(c.height, y) }

func (c *canvas) rect(x, y, w, h int, fill, stroke string) {
	c.grow(x+w, y+h)
	fmt.Fprintf(&c.b, `<rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="%s"/>`+"\n", x, y, w, h, fill, stroke)
}

func (c *canvas) text(x, y int, style, s string) {
	c.grow(x+len(s)*7, y)
	fmt.Fprintf(&c.b, `<text x="%d" y="%d" %s>%s</text>`+"\n", x, y, style, html.EscapeString(s))
}

func (c *canvas) line(x1, y1, x2, y2 int, style string) {
	c.grow(max(x1, x2), max(y1, y2))
	fmt.Fprintf(&c.b, `<line x1="%d" y1="%d" x2="%d" y2="%d" %s/>`+"\n", x1, y1, x2, y2, style)
}

// document closes the picture: a standalone SVG 1.1 file.
func (c *canvas) document(title string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="%d">
<title>%s</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#c2410c"/></marker></defs>
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, c.width+gap, c.height+gap, textSize, html.EscapeString(title), c.b.String())
}

// SVG draws the topology: the underlay as a bar, a column for each node with its devices and pods.
func (w World) SVG() string {
	c := &canvas{}
	nodes := w.nodes()
	top := gap + 50
	c.rect(gap, gap, len(nodes)*(boxWidth+gap)-gap, 28, "#e2e8f0", "#64748b")
	c.text(gap+10, gap+19, `fill="#334155"`, "underlay")
	for i, n := range nodes {
		x := gap + i*(boxWidth+gap)
		devices := n.devices(w)
		c.line(x+boxWidth/2, gap+28, x+boxWidth/2, top, `stroke="#64748b" stroke-width="2"`)
		c.rect(x, top, boxWidth, 40+len(devices)*rowHeight, "#f8fafc", "#334155")
		c.text(x+12, top+22, `font-weight="bold" fill="#0f172a"`, n.Name)
		for j, d := range devices {
			y := top + 34 + j*rowHeight
			fill := "#dbeafe"
			if d.pod {
				fill = "#dcfce7"
			}
			c.rect(x+10, y, boxWidth-20, rowHeight-4, fill, "#94a3b8")
			c.text(x+18, y+15, `fill="#0f172a"`, shorten(d.name+"  "+d.detail, 53))
		}
	}
	return c.document("topology")
}

// SVG draws the packet's way as a sequence: a column for each host in the order the packet meets them, a numbered arrow or
// box for each step, the deciding object below it.
func (t Trace) SVG() string {
	c := &canvas{}
	var hosts []string
	for _, s := range t.Steps {
		if !slices.Contains(hosts, s.Host) {
			hosts = append(hosts, s.Host)
		}
	}
	const stepHeight = 44
	columnOf := func(host string) int { return gap + slices.Index(hosts, host)*(boxWidth+gap) }
	top := gap + 20
	c.text(gap, gap-12, `fill="#0f172a"`, t.Legs())
	bottom := top + 40 + len(t.Steps)*stepHeight
	for _, h := range hosts {
		x := columnOf(h)
		c.rect(x, top, boxWidth, 28, "#e2e8f0", "#334155")
		c.text(x+12, top+19, `font-weight="bold" fill="#0f172a"`, shorten(h, 53))
		c.line(x+boxWidth/2, top+28, x+boxWidth/2, bottom, `stroke="#cbd5e1" stroke-dasharray="4 4"`)
	}
	previous := ""
	for i, s := range t.Steps {
		x, y := columnOf(s.Host), top+40+i*stepHeight
		if previous != "" && previous != s.Host {
			c.line(columnOf(previous)+boxWidth/2, y-8, x+boxWidth/2, y-2, `stroke="#c2410c" stroke-width="2" marker-end="url(#tip)"`)
		}
		previous = s.Host
		c.rect(x, y, boxWidth, stepHeight-8, "#fff7ed", "#c2410c")
		c.text(x+8, y+14, `fill="#0f172a"`, shorten(fmt.Sprintf("%d %s: %s", i+1, s.Point, s.Effect), 54))
		c.b.WriteString("<g>")
		c.text(x+8, y+29, `fill="#64748b" font-size="10"`, shorten(s.Object, 63))
		fmt.Fprintf(&c.b, "<title>%s</title></g>\n", html.EscapeString(s.Object))
	}
	c.text(gap, bottom+16, `font-weight="bold" fill="#0f172a"`, fmt.Sprintf("%s: %s", t.Verdict, t.End))
	return c.document(t.Legs())
}

// shorten cuts a text to n characters; the whole one is in the picture's tooltip or the text form.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
