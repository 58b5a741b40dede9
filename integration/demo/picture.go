package demo

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
)

// The picture's size in pixels: with its grain it makes a PNG of about 2 MB.
const width, height = 1200, 800

// Picture draws a shoal of fish, always the same, as PNG.
func Picture() ([]byte, error) {
	r := rand.New(rand.NewPCG(198, 18))
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		depth := float64(y) / height
		for x := range width {
			grain := r.Float64() * 14
			img.SetNRGBA(x, y, color.NRGBA{
				R: uint8(20*(1-depth) + grain),
				G: uint8(130*(1-depth) + 40 + grain),
				B: uint8(90*(1-depth) + 110 + grain),
				A: 255,
			})
		}
	}
	for range 90 {
		// Most of them near the middle, all of them heading one way.
		x := width/2 + r.NormFloat64()*width/6
		y := height/2 + r.NormFloat64()*height/7
		fish(img, x, y, 12+r.Float64()*22, color.NRGBA{R: 225, G: uint8(120 + r.IntN(100)), B: 60, A: 255})
	}
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}

// fish draws one, of that length from its middle to its nose.
func fish(img *image.NRGBA, x, y, length float64, c color.NRGBA) {
	for dy := -length; dy <= length; dy++ {
		for dx := -2 * length; dx <= length; dx++ {
			body := math.Pow(dx/length, 2)+math.Pow(dy/(length*0.45), 2) < 1
			tail := dx < -0.8*length && dx > -1.7*length && math.Abs(dy) < (-dx-0.8*length)*0.6
			eye := math.Hypot(dx-0.6*length, dy+0.1*length) < length*0.09
			at := image.Pt(int(x+dx), int(y+dy))
			switch {
			case !at.In(img.Rect):
			case eye:
				img.SetNRGBA(at.X, at.Y, color.NRGBA{A: 255})
			case body || tail:
				img.SetNRGBA(at.X, at.Y, c)
			}
		}
	}
}
