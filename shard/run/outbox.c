#include "shard/run/outbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"

struct parcel {
	struct outbox_state *state;
	struct parcel *next;
	kx_status status; /* KX_OK: arrived */
	char *id;
	uint64_t generation;
	enum kx_store_change_kind kind;
	size_t len;
	uint8_t event[];
};

/* Outlives the outbox for as long as the bus may still confirm. */
struct outbox_state {
	pthread_mutex_t lock;
	struct parcel *settled; /* confirmed, failed, or not yet sent */
	size_t waiting;         /* parcels that exist */
	size_t owners;          /* the outbox and every parcel at the bus */
	bool closed;
};

struct kx_outbox {
	struct kx_bus *bus;
	char *topic;
	struct outbox_state *state;
};

static void parcel_free(struct parcel *parcel)
{
	free(parcel->id);
	free(parcel);
}

/* Called with the lock held, which it releases. */
static void release_state(struct outbox_state *state)
{
	bool last = --state->owners == 0;

	pthread_mutex_unlock(&state->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&state->lock);
	free(state);
}

kx_status kx_outbox_new(struct kx_bus *bus, const char *topic, struct kx_outbox **ret)
{
	struct kx_outbox *outbox = calloc(1, sizeof(*outbox));
	struct outbox_state *state = calloc(1, sizeof(*state));
	char *copy = kx_strdup(topic);

	if (!outbox || !state || !copy || pthread_mutex_init(&state->lock, NULL)) {
		free(outbox);
		free(state);
		free(copy);
		return KX_ENOMEM;
	}
	state->owners = 1;
	outbox->bus = bus;
	outbox->topic = copy;
	outbox->state = state;
	*ret = outbox;
	return KX_OK;
}

static void free_parcels(struct parcel *parcel)
{
	while (parcel) {
		struct parcel *next = parcel->next;

		parcel_free(parcel);
		parcel = next;
	}
}

void kx_outbox_free(struct kx_outbox *outbox)
{
	if (!outbox)
		return;
	pthread_mutex_lock(&outbox->state->lock);
	outbox->state->closed = true;
	free_parcels(outbox->state->settled);
	outbox->state->settled = NULL;
	release_state(outbox->state);
	free(outbox->topic);
	free(outbox);
}

static void push_settled(struct outbox_state *state, struct parcel *parcel, kx_status status)
{
	parcel->status = status;
	parcel->next = state->settled;
	state->settled = parcel;
}

/* On any thread, also inside publish. */
static void delivered(void *ctx, kx_status status)
{
	struct parcel *parcel = ctx;
	struct outbox_state *state = parcel->state;

	pthread_mutex_lock(&state->lock);
	if (state->closed)
		parcel_free(parcel);
	else
		push_settled(state, parcel, status);
	release_state(state);
}

static kx_status publish(struct kx_outbox *outbox, struct parcel *parcel, struct kx_error *error)
{
	struct outbox_state *state = outbox->state;
	kx_status status;

	pthread_mutex_lock(&state->lock);
	state->owners++;
	pthread_mutex_unlock(&state->lock);
	status = kx_bus_publish(outbox->bus, outbox->topic, KX_BUS_KEYED, parcel->id, strlen(parcel->id), parcel->event,
				parcel->len, delivered, parcel, error);
	if (!status)
		return KX_OK;
	pthread_mutex_lock(&state->lock);
	push_settled(state, parcel, status);
	release_state(state);
	return status == KX_EAGAIN ? KX_OK : status;
}

kx_status kx_outbox_send(struct kx_outbox *outbox, const struct kx_store_event *event, struct kx_error *error)
{
	struct parcel *parcel = malloc(sizeof(*parcel) + event->len);

	if (!parcel)
		return kx_error_nomem(error);
	*parcel = (struct parcel){.state = outbox->state,
				  .id = kx_strdup(event->id),
				  .generation = event->generation,
				  .kind = event->kind,
				  .len = event->len};
	if (!parcel->id) {
		free(parcel);
		return kx_error_nomem(error);
	}
	memcpy(parcel->event, event->bytes, event->len);
	pthread_mutex_lock(&outbox->state->lock);
	outbox->state->waiting++;
	pthread_mutex_unlock(&outbox->state->lock);
	return publish(outbox, parcel, error);
}

static struct parcel *take_settled(struct outbox_state *state)
{
	struct parcel *taken;

	pthread_mutex_lock(&state->lock);
	taken = state->settled;
	state->settled = NULL;
	for (struct parcel *parcel = taken; parcel; parcel = parcel->next)
		state->waiting -= !parcel->status;
	pthread_mutex_unlock(&state->lock);
	return taken;
}

kx_status kx_outbox_settle(struct kx_outbox *outbox, struct kx_store_batch *batch, struct kx_error *error)
{
	struct parcel *parcel = take_settled(outbox->state);
	kx_status status = KX_OK;

	while (parcel) {
		struct parcel *next = parcel->next;

		if (!parcel->status) {
			kx_store_batch_delivered(batch, parcel->id, parcel->generation, parcel->kind);
			parcel_free(parcel);
		} else if (!status) {
			if (parcel->status != KX_EAGAIN)
				kx_log(KX_LOG_WARN, "event of video %s was not delivered (%s): sent again", parcel->id,
				       kx_status_name(parcel->status));
			status = publish(outbox, parcel, error);
		} else {
			parcel_free(parcel); /* the shard fails; the store's outbox still has it */
		}
		parcel = next;
	}
	return status;
}

bool kx_outbox_unsettled(struct kx_outbox *outbox)
{
	bool unsettled;

	pthread_mutex_lock(&outbox->state->lock);
	unsettled = outbox->state->settled != NULL;
	pthread_mutex_unlock(&outbox->state->lock);
	return unsettled;
}

size_t kx_outbox_waiting(struct kx_outbox *outbox)
{
	size_t waiting;

	pthread_mutex_lock(&outbox->state->lock);
	waiting = outbox->state->waiting;
	pthread_mutex_unlock(&outbox->state->lock);
	return waiting;
}
