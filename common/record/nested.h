/* Conversions of messages that stand inside others. Internal to common/record. Layer: record. */
#ifndef KX_RECORD_NESTED_H
#define KX_RECORD_NESTED_H

#include "common/record/result.h"
#include "common/record/support.h"
#include "common/record/video.h"
#include "proto/record.pb-c.h"
#include "proto/result.pb-c.h"

Kinodex__V1__Moment *kx_moment_write(struct kx_writer *w, const struct kx_moment *moment);
void kx_moment_read(struct kx_reader *r, const Kinodex__V1__Moment *m, struct kx_moment *moment);
void kx_moment_clear(struct kx_moment *moment);

Kinodex__V1__Attribute **kx_attributes_write(struct kx_writer *w, const struct kx_extras *extras);
void kx_extras_read(struct kx_reader *r, const char *language, const char *visibility,
		    Kinodex__V1__Attribute *const *list, size_t count, struct kx_extras *extras);

Kinodex__V1__VideoInfo *kx_video_info_write(struct kx_writer *w, const struct kx_video_info *info);
void kx_video_info_read(struct kx_reader *r, const Kinodex__V1__VideoInfo *m, struct kx_video_info *info);
void kx_video_info_clear(struct kx_video_info *info);

/* parts and info of a plan, which the structs that have one hold apart. */
Kinodex__V1__VideoPlan *kx_plan_write(struct kx_writer *w, uint32_t parts, const struct kx_video_info *info);
void kx_plan_read(struct kx_reader *r, const Kinodex__V1__VideoPlan *m, uint32_t *ret_parts,
		  struct kx_video_info *info);

Kinodex__V1__PartEnd *kx_part_end_write(struct kx_writer *w, const struct kx_part_end *end);
void kx_part_end_read(struct kx_reader *r, const Kinodex__V1__PartEnd *m, struct kx_part_end *end);

Kinodex__V1__VideoRecord *kx_video_record_write(struct kx_writer *w, const struct kx_video_record *video);
void kx_video_record_read(struct kx_reader *r, const Kinodex__V1__VideoRecord *m,
			  struct kx_video_record *video);

#endif
