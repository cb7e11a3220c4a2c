/* For tests: what tone.h promises, in doubles and as its standards write it. Layer: worker/media. */
#ifndef KX_MEDIA_TEST_TONE_H
#define KX_MEDIA_TEST_TONE_H

#include <math.h>

static double pq_to_nits(double signal)
{
	double p = pow(signal, 1 / 78.84375);
	return 10000 * pow(fmax(p - 0.8359375, 0) / (18.8515625 - 18.6875 * p), 1 / 0.1593017578125);
}

static double nits_to_pq(double nits)
{
	double p = pow(nits / 10000, 0.1593017578125);
	return pow((0.8359375 + 18.8515625 * p) / (1 + 18.6875 * p), 78.84375);
}

/* BT.2390's roll-off, as its text has it. */
static double eetf(double nits)
{
	double white = nits_to_pq(1000);
	double e1 = fmin(nits_to_pq(nits) / white, 1);
	double max = nits_to_pq(203) / white;
	double ks = 1.5 * max - 0.5;
	if (e1 >= ks) {
		double t = (e1 - ks) / (1 - ks);
		e1 = (2 * pow(t, 3) - 3 * pow(t, 2) + 1) * ks + (pow(t, 3) - 2 * pow(t, 2) + t) * (1 - ks) +
		     (-2 * pow(t, 3) + 3 * pow(t, 2)) * max;
	}
	return pq_to_nits(e1 * white);
}

/* BT.2100's OOTF for HLG on a display of 1000 nits, from light of the scene of 0..1. */
static void hlg_display(const double scene[3], double nits[3])
{
	double luminance = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2];
	for (int i = 0; i < 3; i++)
		nits[i] = 1000 * pow(luminance, 0.2) * scene[i];
}

/* Levels of 0..255, from light in BT.2020's primaries and nits. */
static void reference_tone(const double light[3], double out[3])
{
	static const double matrix[3][3] = {
		{1.660491, -0.587641, -0.072850}, {-0.124550, 1.132900, -0.008349}, {-0.018151, -0.100579, 1.118730}};
	double max = fmax(fmax(light[0], light[1]), light[2]);
	for (int i = 0; i < 3; i++) {
		double sum = 0;
		for (int j = 0; j < 3; j++)
			sum += matrix[i][j] * light[j];
		double down = max > 0 ? sum * eetf(max) / max / 203 : 0;
		out[i] = 255 * pow(fmin(fmax(down, 0), 1), 1 / 2.4);
	}
}

#endif
